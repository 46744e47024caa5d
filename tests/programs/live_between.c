/*
 * live_between.so: a library that calls back whoever calls it, through two functions of its own. Built without symbols,
 * it shows whether a stack passes code that only call frame information describes.
 */
__attribute__((noinline, noclone)) static int inner(int (*then)(int), int place)
{
	volatile int answer = then(place);

	return answer + 1;
}

int call_between(int (*then)(int), int place)
{
	volatile char room[200];

	room[0] = (char)inner(then, place);
	return room[0];
}
