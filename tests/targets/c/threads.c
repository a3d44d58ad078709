// Four named threads that burn the same time each. usage: threads SECONDS [WARM_UP_SECONDS]
#include "burn.h"

static double seconds;

NOINLINE void *thread_body(void *name) {
    pthread_setname_np(pthread_self(), name);
    burn(seconds);
    return NULL;
}

int main(int argc, char **argv) {
    seconds = argument(argc, argv, 1, 2);
    usleep((useconds_t)(argument(argc, argv, 2, 0) * 1e6));
    static const char *names[] = {"painter", "reader", "writer", "keeper"};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, thread_body, (void *)names[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    printf("{\"threads\":4,\"seconds\":%f}\n", seconds);
    return 0;
}
