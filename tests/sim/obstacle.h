/* Obstacles on the way of frames, for tests: wraps an endpoint and holds back what cannot pass.
 *
 *   mute      what this endpoint answers never has a result in it
 *   hide      what this endpoint holds is never told
 *   a way     frames on it wait, in order, as TCP keeps them, and go on when it is free again. A connection that is begun
 *             meanwhile does not come up
 *   a name    that nobody resolves: connections that are begun meanwhile do not come up, nor is one refused; those that
 *             there are live on
 *
 * Ways and names are those of an address that this endpoint connects to. */
#ifndef CONCLAVE_TESTS_SIM_OBSTACLE_H
#define CONCLAVE_TESTS_SIM_OBSTACLE_H

#include <stdbool.h>

#include "transport/transport.h"

typedef enum { OBSTACLE_OUT = 1, OBSTACLE_IN = 2, OBSTACLE_NAME = 4 } obstacle_kind;

transport *obstacle_open(transport *inner); /* owns it */
void obstacle_mute(transport *t, bool on);
void obstacle_hide(transport *t, bool on); /* what it holds */
/* kinds: the sum of those that stand there from now on; 0: none. */
void obstacle_set(transport *t, const char *address, unsigned kinds);

#endif
