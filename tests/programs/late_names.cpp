// Loses 40 blocks of 1000 bytes: main() calls company::lose(), into which take() is inlined.
#include <cstdlib>

template <typename T> static inline __attribute__((always_inline)) T *take(size_t size) {
    T *got = static_cast<T *>(malloc(size));
    *got = 1;
    return got;
}

namespace company {
__attribute__((noinline)) char lose(size_t size) {
    volatile char *got = take<char>(size);
    return *got;
}
}

int main() {
    char all = 0;
    for (int round = 0; round < 40; round++)
        all |= company::lose(1000);
    return all == 1 ? 0 : 1;
}
