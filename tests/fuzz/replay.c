/* Stands in for libFuzzer: runs the target on every input that is kept, so that each build and sanitizer tries them. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define EXIT_SKIPPED 77

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input in memory of exactly its size: AddressSanitizer sees a read past its end. */
static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rbe");
    uint8_t *data = NULL;
    long size = -1;
    int ok = 0;

    if (f != NULL && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0) {
        data = malloc((size_t)size > 0 ? (size_t)size : 1);
        ok = data != NULL && fread(data, 1, (size_t)size, f) == (size_t)size;
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    if (ok) {
        (void)LLVMFuzzerTestOneInput(data, (size_t)size);
    } else {
        (void)fprintf(stderr, "%s: cannot be read\n", path);
    }
    free(data);
    return ok;
}

/* Adds to *n_inputs; 0 if something could not be read. A path that does not exist has no inputs. */
static int replay_path(const char *path, size_t *n_inputs)
{
    struct stat info;
    struct dirent **names = NULL;
    int ok = 1, n;

    if (stat(path, &info) != 0) {
        return 1;
    }
    if (S_ISREG(info.st_mode)) {
        *n_inputs += 1;
        return replay_file(path);
    }
    n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char child[4096];

        if (names[i]->d_name[0] != '.' &&
            (size_t)snprintf(child, sizeof child, "%s/%s", path, names[i]->d_name) < sizeof child) {
            ok &= replay_path(child, n_inputs);
        }
        free(names[i]);
    }
    free(names);
    return ok && n >= 0;
}

int main(int argc, char **argv)
{
    size_t n_inputs = 0;
    int ok = 1;

    for (int i = 1; i < argc; i++) {
        ok &= replay_path(argv[i], &n_inputs);
    }
    if (n_inputs == 0 && ok) {
        (void)printf("skipped: no inputs in %s\n", argc > 1 ? argv[1] : "the arguments: there are none");
        return EXIT_SKIPPED;
    }
    (void)printf("replayed %zu inputs\n", n_inputs);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
