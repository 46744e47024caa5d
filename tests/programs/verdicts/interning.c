/*
 * Truth: no leak: each different word is kept once, and of the 300 words of the language the last come after 12 s.
 */
#include "traffic.h"

#define WORDS 300

static char *words_kept[WORDS];

NOINLINE static char *keep_word(unsigned number)
{
	char word[64];

	snprintf(word, sizeof(word), "word-%u-of-a-fixed-vocabulary", number);
	return strdup(word);
}

static void work(long step)
{
	/* Two words a step; the one of them that is usual comes from the first third. */
	unsigned words[2] = {chance(WORDS / 3), chance(WORDS)};

	(void)step;
	for (int number = 0; number < 2; number++)
		if (!words_kept[words[number]])
			words_kept[words[number]] = keep_word(words[number]);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
