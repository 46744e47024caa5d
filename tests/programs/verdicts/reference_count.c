/*
 * Truth: leaks at make_image(): one path in twelve takes a reference too many, so the image's count stays at one.
 */
#include "traffic.h"

struct image {
	int references;
	char pixels[1000];
};

NOINLINE static struct image *make_image(void)
{
	struct image *image = (struct image *)filled(malloc(sizeof(*image)), sizeof(*image));

	image->references = 1;
	return image;
}

NOINLINE static void put(struct image *image)
{
	if (--image->references == 0)
		free(image);
}

NOINLINE static void draw(struct image *image)
{
	if (chance(12) == 0)
		image->references++;
	use(image);
}

static void work(long step)
{
	struct image *image;

	if (step % 3)
		return;
	image = make_image();
	draw(image);
	put(image);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
