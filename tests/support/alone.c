/* Linked in the place of pthread_create into the tests that tests/alone.cmake lists. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    (void)thread;
    (void)attr;
    (void)fn;
    (void)arg;
    (void)fprintf(stderr, "this test starts a thread: take its name out of tests/alone.cmake, so that ThreadSanitizer "
                          "runs it\n");
    abort();
}
