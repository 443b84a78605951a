/* What tests share. Includes cmocka with what it wants before it. Everything here fails the test on trouble, so nothing
 * returns a status. */
#ifndef CONCLAVE_TESTS_SUPPORT_H
#define CONCLAVE_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"

/* ------------------------------------------------------------------------------------------------ temporary folders
 * A new folder under $TMPDIR (or /tmp). test_folder_close removes it with all that is in it. */
typedef struct test_folder {
    char path[256];
} test_folder;

void test_folder_open(test_folder *folder);
void test_folder_close(test_folder *folder);
/* folder/name; valid until the 8th call after this one. */
const char *test_folder_path(const test_folder *folder, const char *name);

/* As cmocka setup and teardown: *state is a test_folder * in between. */
int test_folder_setup(void **state);
int test_folder_teardown(void **state);

/* Creates or replaces a file. */
void test_write_file(const char *path, const void *bytes, size_t n);
void test_write_text(const char *path, const char *text);
/* Everything in the file with a NUL after it; the caller frees it. n_out may be NULL. */
char *test_read_file(const char *path, size_t *n_out);

/* assert_ok(call(..., &err), err) names the reason of a failure. */
#define assert_ok(status, err)                                                                                         \
    do {                                                                                                               \
        moe_status assert_ok_status = (status);                                                                        \
        if (assert_ok_status != MOE_OK) {                                                                              \
            fail_msg("%s: %s", moe_status_text(assert_ok_status), (err).text);                                         \
        }                                                                                                              \
    } while (0)
#define assert_contains(text, part)                                                                                    \
    do {                                                                                                               \
        if (strstr((text), (part)) == NULL) {                                                                          \
            fail_msg("\"%s\" does not contain \"%s\"", (text), (part));                                                \
        }                                                                                                              \
    } while (0)

/* ------------------------------------------------------------------------------------------------ safetensors writer
 * Well-formed files; tests that want malformed ones edit the bytes. */
typedef struct test_tensors test_tensors;

test_tensors *test_tensors_open(void);
void test_tensors_close(test_tensors *t);
/* dtype as safetensors spells it (F32, BF16, ...); n_bytes is taken as it is, also if it contradicts the shape. */
void test_tensors_add(test_tensors *t, const char *name, const char *dtype, const size_t *shape, size_t n_dims,
                      const void *bytes, size_t n_bytes);
/* The file: 8 bytes of header length, the header padded with blanks to 8, the data. The caller frees it. */
unsigned char *test_tensors_bytes(const test_tensors *t, size_t *n_out);
void test_tensors_save(const test_tensors *t, const char *path);

#endif
