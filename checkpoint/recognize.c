/* What people have in place of a checkpoint, and the command that helps. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/checkpoint_priv.h"

enum { MAX_ENTRIES = 10000, EXAMPLE_BYTES = 256 };

#define GET_SAFETENSORS "Conclave does not read it: get the safetensors of the model"

static const struct {
    const char *ending, *what, *advice;
} kinds[] = {
    /* The first that is there is named: a directory may hold a model in several forms. */
    {".bin", "pickled by PyTorch", "run `conclave convert DIR OUT`, then serve OUT"},
    {".safetensors", "safetensors", "expected model.safetensors, or model.safetensors.index.json beside its shards"},
    {".gguf", "of llama.cpp", GET_SAFETENSORS},
    {".pth", "pickled by PyTorch in its author's own layout", GET_SAFETENSORS},
    {".pt", "pickled by PyTorch", GET_SAFETENSORS},
    {".ckpt", "a training checkpoint", GET_SAFETENSORS},
    {".h5", "of TensorFlow", GET_SAFETENSORS},
    {".msgpack", "of Flax", GET_SAFETENSORS},
    {".npz", "of NumPy", GET_SAFETENSORS},
    {"snapshots", "of the Hugging Face hub's cache", "serve the directory below it"}, /* a whole name */
};

static bool ends_with(const char *name, const char *ending)
{
    size_t n = strlen(name), n_ending = strlen(ending);

    return n > n_ending && strcmp(name + n - n_ending, ending) == 0;
}

/* training_args.bin and its like are no weights. */
static bool is_weights(const char *name, const char *ending)
{
    if (ending[0] != '.') {
        return strcmp(name, ending) == 0;
    }
    return ends_with(name, ending) && (strcmp(ending, ".bin") != 0 || strncmp(name, "pytorch_model", 13) == 0);
}

/* The index of the first kind that is there; MOE_COUNT(kinds): none. example: one file of it. */
static size_t find_kind(DIR *dir, char example[EXAMPLE_BYTES])
{
    size_t best = MOE_COUNT(kinds);
    const struct dirent *entry;

    for (int n = 0; n < MAX_ENTRIES && (entry = readdir(dir)) != NULL; n++) {
        for (size_t i = 0; i < best; i++) {
            if (is_weights(entry->d_name, kinds[i].ending)) {
                best = i;
                (void)snprintf(example, EXAMPLE_BYTES, "%s", entry->d_name);
            }
        }
    }
    return best;
}

moe_status checkpoint_missing(int dir_fd, const char *what, moe_error *err)
{
    char example[EXAMPLE_BYTES];
    int fd = openat(dir_fd, ".", O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    size_t kind = MOE_COUNT(kinds);

    if (dir != NULL) {
        kind = find_kind(dir, example);
        (void)closedir(dir);
    } else if (fd >= 0) {
        (void)close(fd);
    }
    if (kind == MOE_COUNT(kinds)) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "%s", what);
    }
    return moe_fail(err, MOE_ERR_NOT_FOUND, "%s, but %.80s (%s): %s", what, example, kinds[kind].what,
                    kinds[kind].advice);
}

/* The weights may be there: then what is missing is all that is said. */
static bool has_weights(int dir_fd)
{
    return faccessat(dir_fd, "model.safetensors", F_OK, 0) == 0 ||
           faccessat(dir_fd, "model.safetensors.index.json", F_OK, 0) == 0;
}

/* ORG/NAME, as other servers take it. */
static bool is_hub_name(const char *dir)
{
    const char *slash = strchr(dir, '/');

    return slash != NULL && slash != dir && dir[0] != '.' && slash[1] != '\0' && strchr(slash + 1, '/') == NULL;
}

moe_status checkpoint_explain(const char *dir, const char *what, moe_error *err)
{
    int fd = open(dir, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    moe_error reason;
    moe_status status;

    if (fd < 0 && errno == ENOENT && is_hub_name(dir)) {
        return moe_fail(
            err, MOE_ERR_NOT_FOUND,
            "%.120s: no such directory, and models are not fetched: hf download %.120s --local-dir DIR, then "
            "serve DIR",
            dir, dir);
    }
    if (fd < 0) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "%.200s: %s", dir, strerror(errno));
    }
    status = has_weights(fd)
                 ? moe_fail(&reason, MOE_ERR_NOT_FOUND, "%s beside the weights: was all of it fetched?", what)
                 : checkpoint_missing(fd, what, &reason);
    (void)close(fd);
    return moe_fail(err, status, "%.120s: %s", dir, reason.text);
}
