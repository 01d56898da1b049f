/* What this machine's GPUs are, or whether one of them works: asked in a process that may crash or hang over it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "worker/work.h"

enum { MAX_GPUS = 64 };

static void send_probed(struct draftd_work *work, const struct draft_device *device, int first, int count)
{
    Draftd__Worker__Probed__Gpu gpu[MAX_GPUS], *list[MAX_GPUS];
    char driver[MAX_GPUS][32];
    for (int i = 0; i < count; i++) {
        snprintf(driver[i], sizeof driver[i], "CUDA %d.%d", device[i].driver / 1000, device[i].driver % 1000 / 10);
        gpu[i] = (Draftd__Worker__Probed__Gpu)DRAFTD__WORKER__PROBED__GPU__INIT;
        gpu[i].number = first + i;
        gpu[i].name = (char *)(uintptr_t)device[i].name;
        gpu[i].memory_bytes = device[i].memory;
        gpu[i].free_bytes = device[i].free;
        gpu[i].major = device[i].major;
        gpu[i].minor = device[i].minor;
        gpu[i].driver = driver[i];
        list[i] = &gpu[i];
    }
    Draftd__Worker__Probed probed = DRAFTD__WORKER__PROBED__INIT;
    probed.n_gpus = (size_t)count;
    probed.gpus = list;
    Draftd__Worker__Report report = DRAFTD__WORKER__REPORT__INIT;
    report.kind_case = DRAFTD__WORKER__REPORT__KIND_PROBED;
    report.probed = &probed;
    draftd_line_send(work->line, &report);
}

bool draftd_work_probe(struct draftd_work *work, const Draftd__Worker__Probe *task, struct draft_error *err)
{
    static struct draft_device device[MAX_GPUS];
    const char *libraries = getenv("DRAFT_CUDA_LIBRARIES");
    if (!task->device[0]) {
        int count = draft_devices(libraries, device, MAX_GPUS, err);
        if (count < 0)
            return false;
        send_probed(work, device, 0, count < MAX_GPUS ? count : MAX_GPUS);
        return true;
    }
    struct draft_device_choice choice;
    if (!draft_device_parse(task->device, &choice, err))
        return false;
    if (choice.cpu || choice.automatic)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%.32s is no GPU", task->device);
    if (!draft_device_probe(libraries, choice.number, &draft_services, &device[0], err))
        return false;
    send_probed(work, &device[0], choice.number, 1);
    return true;
}
