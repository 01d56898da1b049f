/* What a hostile worker might send. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "fake_line.h"

/* A report of any kind with numbers and words a hostile worker might choose. */
static size_t strange_report(uint8_t *out, const Draftd__Worker__Train *task)
{
    static const int64_t numbers[] = {0, 1, 5, -1, INT64_MAX, INT64_MIN, 1000000};
    static char *const words[] = {(char *)"",          (char *)"reward", (char *)"\xff\xfe", (char *)"../../etc/passwd",
                                  (char *)"preview-1", (char *)"a\nb"};
    int64_t number = numbers[rand() % 7];
    char *word = words[rand() % 6];
    char path[4096];
    snprintf(path, sizeof path, "%s/checkpoints/%s", task->folder, word);
    char *names[] = {word, (char *)"kl"};
    double values[] = {NAN, 1e308};
    Draftd__Worker__Report report = DRAFTD__WORKER__REPORT__INIT;
    Draftd__Worker__Progress progress_ = DRAFTD__WORKER__PROGRESS__INIT;
    Draftd__Worker__Metrics metrics = DRAFTD__WORKER__METRICS__INIT;
    Draftd__Worker__Saved saved = DRAFTD__WORKER__SAVED__INIT;
    Draftd__Worker__PreviewReport preview = DRAFTD__WORKER__PREVIEW_REPORT__INIT;
    Draftd__Worker__Notice notice = DRAFTD__WORKER__NOTICE__INIT;
    switch (rand() % 6) {
    case 0:
        progress_.step = number;
        progress_.phase = word;
        progress_.phase_total = numbers[rand() % 7];
        report.progress = &progress_;
        report.kind_case = DRAFTD__WORKER__REPORT__KIND_PROGRESS;
        break;
    case 1:
        metrics.step = number;
        metrics.names = names;
        metrics.values = values;
        metrics.n_names = 2;
        metrics.n_values = rand() % 8 ? 2 : 1;
        metrics.seconds = NAN;
        report.metrics = &metrics;
        report.kind_case = DRAFTD__WORKER__REPORT__KIND_METRICS;
        break;
    case 2:
        saved.step = number;
        saved.path = path;
        saved.checksum = word;
        report.saved = &saved;
        report.kind_case = DRAFTD__WORKER__REPORT__KIND_SAVED;
        break;
    case 3:
        preview.preview_id = word;
        preview.step = number;
        preview.index = (int32_t)number;
        preview.has_picture = rand() % 2;
        preview.done = rand() % 2;
        preview.code = (int32_t)number;
        report.preview = &preview;
        report.kind_case = DRAFTD__WORKER__REPORT__KIND_PREVIEW;
        break;
    default:
        notice.step = number;
        notice.message = word;
        report.notice = &notice;
        report.kind_case = DRAFTD__WORKER__REPORT__KIND_NOTICE;
    }
    return draftd__worker__report__pack(&report, out);
}

_Noreturn void fuzz(unsigned seed, const Draftd__Worker__Train *task)
{
    uint8_t frame[8192];
    srand(seed);
    for (int i = 0; i < 60; i++) {
        size_t size = strange_report(frame + 4, task);
        for (int flips = rand() % 3; flips > 0 && size > 0 && seed % 2; flips--)
            frame[4 + (size_t)rand() % size] ^= (uint8_t)(1 << rand() % 8);
        size_t claimed = rand() % 40 == 0 ? (size_t)rand() % 100 : size;
        for (int b = 0; b < 4; b++)
            frame[b] = (uint8_t)(claimed >> (8 * b));
        write_all(frame, size + 4);
    }
    exit(0);
}
