/*
 * A worker without an engine: speaks proto/worker.proto on fd 3, "trains" by a chain of hashes that only continues
 * right from the right checkpoint, and misbehaves as the job's display name tells, words separated by blanks:
 *
 *   ms=N          a step takes N milliseconds (default 2)
 *   WHAT@S[xN]    at step S of the first N attempts (default 1): crash, kill (SIGKILL), exit, hang, garbage, huge, cut,
 *                 nan, inf, full, nonfinite, io, badname, badpath, strange, notice
 *   inspect=WHAT  crash, hang, refuse, garbage, silent
 *   preview=WHAT  crash, fail, slow, absent
 *   fuzz=N        after Started 60 frames of every kind, damaged at random with seed N
 *   load          takes half a second before Started, but obeys Stop
 *   deaf          does not obey Stop; noisy: writes 3 MB to stderr; early: metrics before Started
 *
 *   sticky@S      at step S: as a worker does whose GPU is lost; cpuonly: no GPU can do it
 *   large@S       the checkpoint of step S is 1 GiB (a hole), its checksum another's
 *
 * The fingerprint is the checksum of <model>/weights. FAKE_GPUS (a number) are there, of 80 GiB; each line of the file
 * FAKE_GPU_STATE is what a probe of one meets: "cuda:1 sick", "cuda:1 crash" or "cuda:1 hang" ("list crash": the
 * listing).
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "fake_line.h"

static const char *script = "";
static int attempt = 1;

static bool says(const char *word)
{
    size_t length = strlen(word);
    for (const char *p = script; (p = strstr(p, word)); p += length)
        if ((p == script || p[-1] == ' ') && (p[length] == '\0' || p[length] == ' '))
            return true;
    return false;
}

/* "crash@5x2": at step 5 of the first two attempts. */
static bool due(const char *what, int64_t step)
{
    char word[32];
    snprintf(word, sizeof word, "%s@", what);
    const char *p = strstr(script, word);
    if (p == NULL || (p != script && p[-1] != ' '))
        return false;
    char *end;
    int64_t at = strtoll(p + strlen(word), &end, 10);
    int times = *end == 'x' ? atoi(end + 1) : 1;
    return step == at && attempt <= times;
}

static int milliseconds(void)
{
    const char *p = strstr(script, "ms=");
    return p ? atoi(p + 3) : 2;
}

static void progress(int64_t step, const char *phase, int64_t done, int64_t total)
{
    Draftd__Worker__Progress report = DRAFTD__WORKER__PROGRESS__INIT;
    report.step = step;
    report.phase = (char *)phase;
    report.phase_done = done;
    report.phase_total = total;
    SEND(progress, PROGRESS, &report);
}

static void hang(void)
{
    signal(SIGTERM, SIG_IGN);
    for (;;)
        pause();
}

static void misbehave(int64_t step, const char *folder)
{
    if (due("crash", step)) {
        fprintf(stderr, "fake: about to crash at step %lld\n", (long long)step);
        raise(SIGSEGV);
    }
    if (due("kill", step))
        raise(SIGKILL);
    if (due("exit", step))
        _exit(3);
    if (due("hang", step))
        hang();
    if (due("garbage", step)) {
        char frame[104] = {100};
        memset(frame + 4, 0xff, 100);
        write_all(frame, sizeof frame);
        hang();
    }
    if (due("huge", step)) {
        write_all("\xff\xff\xff\xff", 4);
        hang();
    }
    if (due("cut", step)) {
        write_all("\x10\x00\x00\x00\x0a", 5);
        _exit(0);
    }
    if (due("full", step))
        finish(DRAFT_DISK_FULL, "writing the checkpoint: no space left on device", false);
    if (due("nonfinite", step))
        finish(DRAFT_NON_FINITE, "3 steps in a row had a loss that is not finite", false);
    if (due("io", step))
        finish(DRAFT_IO, "reading the weights: input/output error", false);
    if (due("sticky", step))
        finish(DRAFT_DEVICE_LOST, "adding: illegal address; the GPU's work in this process is lost", false);
    if (due("badpath", step)) {
        Draftd__Worker__Saved saved = DRAFTD__WORKER__SAVED__INIT;
        char path[4096];
        snprintf(path, sizeof path, "%s/checkpoints/../dataset.jsonl", folder);
        saved.step = step;
        saved.path = path;
        saved.checksum = (char *)"00000000000000000000000000000000";
        SEND(saved, SAVED, &saved);
        hang();
    }
    if (due("strange", step)) {
        Draftd__Worker__Inspected inspected = DRAFTD__WORKER__INSPECTED__INIT;
        SEND(inspected, INSPECTED, &inspected);
        hang();
    }
    if (due("notice", step)) {
        Draftd__Worker__Notice notice = DRAFTD__WORKER__NOTICE__INIT;
        notice.step = step;
        notice.message = (char *)"a step was skipped: \xff\xfe\n";
        SEND(notice, NOTICE, &notice);
    }
}

/* --- Training --- */

struct model {
    int64_t step;
    uint64_t state;
};

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 29;
    return x * 0xc4ceb9fe1a85ec53ull + 1;
}

static void save(const struct model *model, const char *folder)
{
    char path[4096], text[128], hex[DRAFT_CHECKSUM_SIZE];
    snprintf(path, sizeof path, "%s/checkpoints/step-%06lld.safetensors", folder, (long long)model->step);
    int length =
        snprintf(text, sizeof text, "fake %lld %llu\n", (long long)model->step, (unsigned long long)model->state);
    struct draft_error err = {0};
    if (!draft_atomic_write_file(path, text, (size_t)length, &err))
        finish(err.code, err.message, false);
    draft_checksum_buffer(text, (size_t)length, hex);
    Draftd__Worker__Saved saved = DRAFTD__WORKER__SAVED__INIT;
    saved.step = model->step;
    saved.path = path;
    saved.bytes = due("large", model->step) ? 1ull << 30 : (uint64_t)length;
    saved.checksum = hex;
    if (truncate(path, (off_t)saved.bytes) < 0)
        finish(DRAFT_IO, "making the checkpoint larger", false);
    SEND(saved, SAVED, &saved);
}

static void restore(struct model *model, const char *path)
{
    FILE *file = fopen(path, "re");
    long long step;
    unsigned long long state;
    if (file == NULL || fscanf(file, "fake %lld %llu", &step, &state) != 2)
        finish(DRAFT_DATA_LOSS, "the checkpoint cannot be read", false);
    fclose(file);
    model->step = step;
    model->state = state;
}

static void send_metrics(int64_t step, uint64_t state, bool evaluation)
{
    char *train[] = {(char *)"reward", (char *)"kl", (char *)"loss"};
    char *eval[] = {(char *)"eval/reward", (char *)"eval/kl", (char *)"eval/lpips"};
    double values[3] = {(double)(state % 1000) / 1000, (double)step / 100, (double)(state % 77)};
    if (due("nan", step))
        values[0] = NAN;
    if (due("inf", step)) {
        values[0] = INFINITY;
        values[1] = -INFINITY;
    }
    if (due("badname", step))
        train[1] = (char *)"a name\nwith a line";
    Draftd__Worker__Metrics metrics = DRAFTD__WORKER__METRICS__INIT;
    metrics.step = step;
    metrics.n_names = metrics.n_values = 3;
    metrics.names = evaluation ? eval : train;
    metrics.values = values;
    metrics.seconds = evaluation ? 0 : (double)milliseconds() / 1000;
    metrics.evaluation = evaluation;
    SEND(metrics, METRICS, &metrics);
}

static void make_preview(const Draftd__Worker__Preview *task, int64_t step)
{
    Draftd__Worker__PreviewReport report = DRAFTD__WORKER__PREVIEW_REPORT__INIT;
    int count = task->spec->count ? task->spec->count : 1, total = (int)task->spec->n_prompts * count;
    report.preview_id = task->preview_id;
    report.step = step;
    report.phase_total = total * 10;
    SEND(preview, PREVIEW, &report);
    if (says("preview=crash"))
        raise(SIGSEGV);
    for (int i = 0; i < total; i++) {
        char path[4096], text[64];
        snprintf(path, sizeof path, "%s/%d.png", task->folder, i);
        int length = snprintf(text, sizeof text, "picture %d of step %lld", i, (long long)step);
        struct draft_error err = {0};
        if (says("preview=fail") || !draft_atomic_write_file(path, text, (size_t)length, &err)) {
            report.done = true;
            report.code = err.code ? err.code : DRAFT_INVALID_ARGUMENT;
            report.message = err.code ? err.message : (char *)"the picture is too large";
            SEND(preview, PREVIEW, &report);
            return;
        }
        if (says("preview=slow"))
            usleep(200000);
        report.has_picture = !says("preview=absent");
        report.index = i;
        report.prompt = task->spec->prompts[i / count];
        report.seed = (uint64_t)(i % count);
        report.height = report.width = 64;
        report.reward = i == 1 ? NAN : 0.5 + i;
        report.bytes = (uint64_t)length;
        report.phase_done = (i + 1) * 10;
        SEND(preview, PREVIEW, &report);
    }
    report.has_picture = false;
    report.done = true;
    SEND(preview, PREVIEW, &report);
}

/* Returns false to leave. */
static void serve(struct model *model, const Draftd__Worker__Train *task)
{
    for (Draftd__Worker__Command *command; (command = next_command(false));) {
        switch (command->kind_case) {
        case DRAFTD__WORKER__COMMAND__KIND_STOP:
            if (says("deaf"))
                break;
            if (command->stop->checkpoint)
                save(model, task->folder);
            finish(DRAFT_OK, "", true);
        case DRAFTD__WORKER__COMMAND__KIND_SAVE:
            save(model, task->folder);
            break;
        case DRAFTD__WORKER__COMMAND__KIND_PREVIEW:
            make_preview(command->preview, model->step);
            break;
        default:
            _exit(9);
        }
        draftd__worker__command__free_unpacked(command, NULL);
    }
}

static int64_t total_steps(const Draftd__V1__JobSpec *spec)
{
    return spec->length && spec->length->steps > 0 ? spec->length->steps : 10;
}

static void fingerprint(const Draftd__V1__JobSpec *spec, char hex[DRAFT_CHECKSUM_SIZE])
{
    char path[4096];
    struct draft_error err = {0};
    snprintf(path, sizeof path, "%s/weights", spec->model);
    if (!draft_checksum_file(path, hex, NULL, &err))
        finish(DRAFT_NOT_FOUND, err.message, false);
}

static void train(const Draftd__Worker__Train *task)
{
    script = task->spec->display_name;
    attempt = task->attempt;
    char hex[DRAFT_CHECKSUM_SIZE];
    fingerprint(task->spec, hex);
    if (strcmp(hex, task->fingerprint) != 0)
        finish_field(DRAFT_FAILED_PRECONDITION, "the weights have changed", "fingerprint");
    struct model model = {0, 1};
    if (*task->checkpoint)
        restore(&model, task->checkpoint);
    if (says("noisy"))
        for (int i = 0; i < 30000; i++)
            fprintf(stderr, "%0100d\n", i);
    progress(model.step, "loading", 0, 1);
    misbehave(-1, task->folder);
    if (says("load"))
        for (int i = 0; i < 50; i++, usleep(10000))
            for (Draftd__Worker__Command *command; (command = next_command(false));)
                if (command->kind_case == DRAFTD__WORKER__COMMAND__KIND_STOP)
                    finish(DRAFT_CANCELLED, "stopped while loading", true);
    if (says("early"))
        send_metrics(model.step, model.state, false);
    Draftd__Worker__Started started = DRAFTD__WORKER__STARTED__INIT;
    started.step = model.step;
    started.total_steps = total_steps(task->spec);
    SEND(started, STARTED, &started);
    if (strstr(script, "fuzz="))
        fuzz((unsigned)atoi(strstr(script, "fuzz=") + 5), task);
    int every = task->spec->checkpoint_every ? task->spec->checkpoint_every : 50;
    if (model.step == 0)
        send_metrics(0, model.state, true);
    while (model.step < started.total_steps) {
        serve(&model, task);
        progress(model.step, "sampling", 0, 2);
        misbehave(model.step + 1, task->folder);
        usleep((useconds_t)milliseconds() * 1000);
        progress(model.step, "sampling", 1, 2);
        model.state = mix(model.state ^ (uint64_t)model.step);
        model.step++;
        send_metrics(model.step, model.state, false);
        if (model.step % 10 == 0)
            send_metrics(model.step, model.state, true);
        if (model.step % every == 0 || model.step == started.total_steps)
            save(&model, task->folder);
    }
    serve(&model, task);
    finish(DRAFT_OK, "", false);
}

static void inspect(const Draftd__Worker__Inspect *task)
{
    script = task->spec->display_name;
    if (says("inspect=crash")) {
        fprintf(stderr, "fake: reading unet/config.json\n");
        raise(SIGABRT);
    }
    if (says("inspect=hang"))
        hang();
    if (says("inspect=refuse")) {
        finish_field(DRAFT_INVALID_ARGUMENT, "rewards[0].kind: there is no reward \"beauty\"", "spec.rewards[0].kind");
    }
    if (says("inspect=garbage")) {
        write_all("\x02\x00\x00\x00\xff\xff", 6);
        hang();
    }
    if (says("inspect=silent"))
        finish(DRAFT_OK, "", false);
    char hex[DRAFT_CHECKSUM_SIZE];
    fingerprint(task->spec, hex);
    char *warnings[] = {(char *)"2 prompts are longer than the tokenizer's 77 tokens"};
    Draftd__Worker__Inspected inspected = DRAFTD__WORKER__INSPECTED__INIT;
    inspected.fingerprint = hex;
    inspected.total_steps = total_steps(task->spec);
    inspected.trained_parameters = 1234;
    inspected.memory_bytes = 1 << 30;
    inspected.gpu_memory_bytes = task->gpu_memory_bytes && !says("cpuonly") ? 2ull << 30 : 0;
    inspected.height = inspected.width = 64;
    inspected.n_warnings = task->n_prompts == 0; /* said when the prompts came as a file */
    inspected.warnings = warnings;
    SEND(inspected, INSPECTED, &inspected);
    finish(DRAFT_OK, "", false);
}

static void sample(const Draftd__Worker__Sample *task)
{
    script = task->job->spec->display_name;
    struct model model = {0, 1};
    if (*task->job->checkpoint)
        restore(&model, task->job->checkpoint);
    make_preview(task->preview, model.step);
    finish(DRAFT_OK, "", false);
}

static void export(const Draftd__Worker__Export *task)
{
    struct model model;
    restore(&model, task->checkpoint);
    char text[256];
    int length = snprintf(text, sizeof text, "lora %s %lld %llu %s %g %s", task->job_id, (long long)model.step,
                          (unsigned long long)model.state, task->reward, task->kl_coeff,
                          task->diffusers ? "diffusers" : "kohya");
    struct draft_error err = {0};
    if (!draft_atomic_write_file(task->path, text, (size_t)length, &err))
        finish(err.code, err.message, false);
    finish(DRAFT_OK, "", false);
}

/* --- Probes --- */

static void meet(const char *device)
{
    const char *path = getenv("FAKE_GPU_STATE");
    FILE *file = path ? fopen(path, "re") : NULL;
    char name[32], what[32];
    while (file && fscanf(file, "%31s %31s", name, what) == 2) {
        if (strcmp(name, *device ? device : "list") != 0)
            continue;
        if (strcmp(what, "sick") == 0)
            finish(DRAFT_INTERNAL, "copying from the GPU: uncorrectable ECC error", false);
        if (strcmp(what, "hang") == 0)
            hang();
        raise(SIGSEGV);
    }
    if (file)
        fclose(file);
}

static void probe(const Draftd__Worker__Probe *task)
{
    const char *said = getenv("FAKE_GPUS");
    int count = said ? atoi(said) : 0, only = *task->device ? atoi(task->device + strlen("cuda:")) : -1;
    Draftd__Worker__Probed__Gpu gpu[8], *list[8];
    Draftd__Worker__Probed probed = DRAFTD__WORKER__PROBED__INIT;
    meet(task->device);
    for (int i = 0; i < count && i < 8; i++) {
        if (only >= 0 && i != only)
            continue;
        gpu[i] = (Draftd__Worker__Probed__Gpu)DRAFTD__WORKER__PROBED__GPU__INIT;
        gpu[i].number = i;
        gpu[i].name = (char *)"Fake GPU";
        gpu[i].memory_bytes = 80ull << 30;
        gpu[i].free_bytes = only >= 0 ? 79ull << 30 : 0;
        gpu[i].major = 9;
        gpu[i].driver = (char *)"CUDA 13.0";
        list[probed.n_gpus++] = &gpu[i];
    }
    probed.gpus = list;
    if (probed.n_gpus == 0)
        finish(DRAFT_FAILED_PRECONDITION, "no NVIDIA driver is installed", false);
    SEND(probed, PROBED, &probed);
    finish(DRAFT_OK, "", false);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGSEGV, SIG_DFL); /* a sanitizer's own handler would make an exit of it */
    Draftd__Worker__Command *command = next_command(true);
    switch (command->kind_case) {
    case DRAFTD__WORKER__COMMAND__KIND_TRAIN:
        train(command->train);
        break;
    case DRAFTD__WORKER__COMMAND__KIND_INSPECT:
        inspect(command->inspect);
        break;
    case DRAFTD__WORKER__COMMAND__KIND_SAMPLE:
        sample(command->sample);
        break;
    case DRAFTD__WORKER__COMMAND__KIND_EXPORT:
        export(command->export);
        break;
    case DRAFTD__WORKER__COMMAND__KIND_PROBE:
        probe(command->probe);
        break;
    default:
        return 9;
    }
    return 0;
}
