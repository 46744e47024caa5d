/* Reads of the traced thread's stack: from a copied piece of it where the words lie there, else from the thread. */

static __always_inline int read_stack(struct in_flight *flight, u64 *words, u32 count, u64 address)
{
	u64 at = (address - flight->window_at) >> 3;

	if (at >= WINDOW_WORDS - 1 || address & 7) {
		flight->window_at = address;
		at = 0;
		if (address & 7 || READ_USER(flight->window, sizeof(flight->window), address)) {
			/* Near the end of the stack a whole piece is not to be had. */
			flight->window_at = 0;
			return READ_USER(words, count * sizeof(u64), address);
		}
	}
	words[0] = flight->window[at & (WINDOW_WORDS - 1)];
	if (count > 1)
		words[1] = flight->window[(at + 1) & (WINDOW_WORDS - 1)];
	return 0;
}

#define READ_STACK(memory, destination, words, address) read_stack(memory, destination, words, address)
