/*
 * Truth: leaks at Picture::load(): pictures are deleted as shapes, whose destructor is not virtual, so pixels stay.
 */
#include <vector>

#include "traffic.h"

struct Shape {
	int x = 0;
	int y = 0;
};

struct Picture : Shape {
	std::vector<char> pixels;
	void load();
};

NOINLINE void Picture::load()
{
	pixels.assign(800, 'p');
}

NOINLINE static Shape *make_picture()
{
	Picture *picture = new Picture;

	picture->load();
	return picture;
}

static void work(long step)
{
	if (step % 15 == 0)
		::operator delete(use(make_picture()));  /* what `delete shape` does, without the compiler's warning */
}

int main(int count, char **words)
{
	return run(count, words, work);
}
