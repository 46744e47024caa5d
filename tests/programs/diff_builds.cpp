// Built twice, with and without -DFIXED, and compared. Of 200 requests, BEFORE loses 200 x 100 bytes at parse(int) and
// AFTER gives them back; AFTER loses 100 x 48 bytes at Journal<int>::add(int), which BEFORE does not have. Both hold
// 50 x 1000 bytes at tables(), which AFTER makes at other lines and addresses.
#include <cstdlib>
#include <unistd.h>

#ifdef FIXED
struct Padding {
    int numbers[100];
};

__attribute__((noinline)) int sum(Padding &padding)
{
    int total = 0;
    for (int &number : padding.numbers)
        total += number += getpid();
    return total;
}
#endif

template <class T> struct Journal {
    void **last = nullptr;

    __attribute__((noinline)) void add(T value)
    {
        void **entry = static_cast<void **>(std::malloc(48));
        entry[0] = last;
        entry[1] = reinterpret_cast<void *>(static_cast<long>(value));
        last = entry;
    }
};

__attribute__((noinline)) char *parse(int number)
{
    char *text = static_cast<char *>(std::malloc(100));
    text[0] = static_cast<char>(number);
    return text;
}

__attribute__((noinline)) void tables()
{
    static char *rows[50];
    for (char *&row : rows)
        row = static_cast<char *>(std::malloc(1000));
    asm volatile("" ::"r"(rows) : "memory");
}

static Journal<int> journal;

int main()
{
    tables();
    volatile char *text = nullptr;
    for (int number = 0; number < 200; number++) {
        text = parse(number);
#ifdef FIXED
        std::free(const_cast<char *>(text));
        if (number % 2)
            journal.add(number);
#endif
    }
#ifdef FIXED
    Padding padding{};
    return sum(padding) == 1;
#else
    return text == nullptr;
#endif
}
