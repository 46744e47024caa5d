/*
 * symbols_direct: memory that a JVM gets from the allocator for Java. Answer: blocks of more than 3000000 bytes for the
 * buffers that keepBuffer(), called by serveRequest(), makes once both are compiled: 20 of them.
 */
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

class symbols_direct {
    static final List<ByteBuffer> kept = new ArrayList<>();

    static void keepBuffer(int size) {
        kept.add(ByteBuffer.allocateDirect(size));
    }

    static void serveRequest(int size) {
        keepBuffer(size);
    }

    static void waitLine() throws IOException {
        int read = System.in.read();
        while (read != '\n') {
            if (read < 0) {
                System.exit(0);
            }
            read = System.in.read();
        }
    }

    public static void main(String[] arguments) throws IOException {
        // So often that the compiler has them.
        for (int turn = 0; turn < 20000; turn++) {
            serveRequest(8);
            kept.clear();
        }
        System.out.println("ready");
        waitLine();
        for (int turn = 0; turn < 20; turn++) {
            serveRequest(3000007);
        }
        System.out.println("end");
        waitLine();
    }
}
