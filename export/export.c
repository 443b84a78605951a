/* From directories to a directory: opened, planned, written, opened again, moved. */
#include "export/export_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------ what goes in */
static moe_status take_in(exporting *x, const pack *p)
{
    catalogue *next = NULL;
    moe_status status = catalogue_with_pack(x->catalogue, p, NULL, 0, &next, x->err);

    if (status == MOE_OK) {
        catalogue_unref(x->catalogue);
        x->catalogue = next;
    }
    return status;
}

static moe_status open_packs(exporting *x)
{
    const pack_base base = pack_model_base(&x->model);
    const pack_options options = {.key_file = x->o->key_file};
    catalogue_model of = {.min_experts = x->model.config.gate.k};
    moe_status status = model_config_space(&x->model.config, &of.space, x->err);

    if (status != MOE_OK) {
        return status;
    }
    memcpy(of.fingerprint, base.fingerprint, sizeof of.fingerprint);
    status = catalogue_read_own(&of, x->o->model, &of.own, x->err);
    if (status == MOE_OK) {
        status = catalogue_open(&of, &x->catalogue, x->err);
        router_set_unref(of.own);
    }
    router_space_unref(of.space);
    x->packs = calloc(x->o->n_packs + 1, sizeof *x->packs);
    if (status == MOE_OK && x->packs == NULL) {
        status = moe_fail(x->err, MOE_ERR_NO_MEMORY, "%zu packs: out of memory", x->o->n_packs);
    }
    for (size_t i = 0; i < x->o->n_packs && status == MOE_OK; i++) {
        moe_error why = {""};

        status = pack_open(x->o->packs[i], &base, &options, &x->packs[i], &why);
        if (status == MOE_OK) {
            status = take_in(x, x->packs[i]);
        } else {
            status = moe_fail(x->err, status, "%.120s: %.300s", x->o->packs[i], why.text);
        }
    }
    return status;
}

static moe_status choose_set(exporting *x)
{
    const export_options *o = x->o;

    if (o->set != NULL) {
        return catalogue_read_set(x->catalogue, o->set, o->set_bytes, &x->set, x->err);
    }
    return catalogue_resolve(x->catalogue, NULL, 0, o->exclude, o->n_exclude, NULL, 0, &x->set, x->err);
}

/* ------------------------------------------------------------------------------------------------ what comes out */
static moe_status write_header(exporting *x, int fd, const char *name, size_t first, size_t end)
{
    output_tensor *tensors = calloc(end - first + 1, sizeof *tensors);

    if (tensors == NULL) {
        return moe_fail(x->err, MOE_ERR_NO_MEMORY, "%s: no memory for %zu tensors", name, end - first);
    }
    for (size_t i = first; i < end; i++) {
        const export_tensor *t = &x->tensors[i];

        tensors[i - first] = (output_tensor){t->name, compute_dtype_name(t->dtype), t->shape, t->rank, t->bytes};
    }
    moe_status status = output_write_header(fd, name, tensors, end - first, x->err);
    free(tensors);
    return status;
}

/* The tensors first .. end - 1 are those of one file. */
static moe_status write_file(exporting *x, size_t first, size_t end)
{
    char name[64];
    int fd = -1;

    output_shard_name(x->tensors[first].file, x->n_files, name);
    moe_status status = output_create(&x->out, name, &fd, x->err);
    if (status != MOE_OK) {
        return status;
    }
    status = write_header(x, fd, name, first, end);
    for (size_t i = first; i < end && status == MOE_OK; i++) {
        status = export_write_tensor(x, fd, name, &x->tensors[i]);
    }
    if (status != MOE_OK) {
        (void)close(fd);
        return status;
    }
    return output_finish(fd, name, x->err);
}

static moe_status write_index(exporting *x)
{
    output_place *places = calloc(x->n_tensors + 1, sizeof *places);
    char(*names)[64] = calloc(x->n_files + 1, sizeof *names);
    moe_status status = MOE_OK;

    if (places == NULL || names == NULL) {
        status = moe_fail(x->err, MOE_ERR_NO_MEMORY, "no memory for %zu tensors", x->n_tensors);
    }
    for (size_t i = 0; i < x->n_tensors && status == MOE_OK; i++) {
        output_shard_name(x->tensors[i].file, x->n_files, names[x->tensors[i].file]);
        places[i] = (output_place){x->tensors[i].name, names[x->tensors[i].file]};
    }
    if (status == MOE_OK) {
        status = output_write_index(&x->out, places, x->n_tensors, x->result.bytes, x->err);
    }
    free(names);
    free(places);
    return status;
}

static moe_status copy_companions(exporting *x)
{
    int dir = open(x->o->model, O_RDONLY | O_CLOEXEC | O_DIRECTORY);

    if (dir < 0) {
        return moe_fail(x->err, MOE_ERR_IO, "%.300s: %s", x->o->model, strerror(errno));
    }
    moe_status status = output_copy_companions(&x->out, dir, "config.json", &x->result.n_copied, x->err);
    (void)close(dir);
    return status;
}

/* The weights last: until they are there the directory is no model. */
static moe_status write_all(exporting *x)
{
    moe_status status = copy_companions(x);

    if (status == MOE_OK) {
        status = export_write_config(x);
    }
    if (status == MOE_OK && x->result.has_set_file) {
        status = export_write_set(x);
    }
    for (size_t first = 0, end; first < x->n_tensors && status == MOE_OK; first = end) {
        for (end = first + 1; end < x->n_tensors && x->tensors[end].file == x->tensors[first].file; end++) {
        }
        status = write_file(x, first, end);
    }
    return status == MOE_OK && x->n_files > 1 ? write_index(x) : status;
}

/* What was written is a checkpoint of the family, with the counts that it is to have. */
static moe_status check(const exporting *x)
{
    model_config config;
    checkpoint *files = NULL;
    model_tensors *tensors = NULL;
    moe_status status = model_config_load(x->out.work, &config, x->err);

    if (status == MOE_OK && (config.n_experts != x->config.n_experts || config.gate_width != x->config.gate_width ||
                             config.n_att_experts != x->config.n_att_experts)) {
        status = moe_fail(x->err, MOE_ERR_DATA_LOSS, "config.json: did not read back as it was written");
    }
    if (status == MOE_OK) {
        status = checkpoint_open(x->out.work, &files, x->err);
    }
    if (status == MOE_OK) {
        status = model_tensors_open(&config, files, &tensors, x->err);
    }
    model_tensors_close(tensors);
    checkpoint_close(files);
    return status;
}

/* ------------------------------------------------------------------------------------------------ the whole */
static moe_status run(exporting *x)
{
    moe_status status = open_packs(x);

    if (status == MOE_OK) {
        status = choose_set(x);
    }
    if (status == MOE_OK) {
        status = export_plan(x);
    }
    if (status == MOE_OK) {
        status = export_list(x);
    }
    if (status == MOE_OK) {
        status = output_open(x->o->out, &x->out, x->err);
    }
    if (status == MOE_OK) {
        status = output_check_room(&x->out, x->result.bytes, x->err);
    }
    if (status == MOE_OK) {
        status = write_all(x);
    }
    if (status == MOE_OK) {
        status = check(x);
    }
    return status == MOE_OK ? output_publish(&x->out, x->err) : status;
}

static void fini(exporting *x)
{
    output_close(&x->out);
    for (size_t i = 0; i < x->n_tensors; i++) {
        free(x->tensors[i].name);
    }
    free(x->tensors);
    free(x->columns);
    free(x->attention);
    router_set_unref(x->set);
    catalogue_unref(x->catalogue);
    for (size_t i = 0; x->packs != NULL && i < x->o->n_packs; i++) {
        pack_close(x->packs[i]);
    }
    free(x->packs);
    pack_model_close(&x->model);
}

moe_status export_run(const export_options *o, export_result *out, moe_error *err)
{
    exporting x = {.o = o, .err = err};

    if (o->set != NULL && o->n_exclude > 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "a set and packs to leave out: give one of them");
    }
    moe_status status = pack_model_open(o->model, NULL, NULL, NULL, &x.model, err);
    if (status != MOE_OK) {
        return status;
    }
    status = run(&x);
    if (status == MOE_OK) {
        *out = x.result;
    }
    fini(&x);
    return status;
}
