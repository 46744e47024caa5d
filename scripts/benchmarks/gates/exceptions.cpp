/*
 * exceptions: makes 40 objects of a class whose constructor throws 10 times, which loses the array that it had made.
 * Answer: 2,560 bytes in 10 blocks at Connection::Connection.
 */
#include <stdexcept>
#include <string>
#include <vector>

#include "block.h"

class Connection {
public:
	explicit Connection(int number);
	~Connection() { delete[] buffer; }

private:
	std::string peer;
	char *buffer;
};

NOINLINE Connection::Connection(int number)
	: peer("a name that is too long for the object itself: " + std::to_string(number)), buffer(new char[256])
{
	use(buffer);
	if (number % 4 == 0)
		throw std::runtime_error(peer + " refused");
}

NOINLINE static size_t connect()
{
	std::vector<std::string> refused;

	for (int i = 0; i < 40; i++) {
		try {
			Connection connection(i);
		} catch (const std::runtime_error &error) {
			refused.push_back(error.what());
		}
	}
	return refused.size();
}

int main()
{
	return connect() == 10 ? 0 : 99;
}
