/* A library with thread-local data of its own, for tls_many. */
static __thread char buf[256];

int add_up(int n);
int add_up(int n)
{
    int sum = 0;
    for (int i = 0; i < 256; i++) buf[i] += n;
    for (int i = 0; i < 256; i++) sum += buf[i];
    return sum;
}
