/* What the daemon knows of the machine's devices: the part of its state that devices.h is about. */
#ifndef DRAFTD_DEVICE_LIST_H
#define DRAFTD_DEVICE_LIST_H

#include <stdbool.h>
#include <stdint.h>

enum { DRAFTD_CPU = 0, DRAFTD_NO_DEVICE = -1, DRAFTD_MAX_DEVICES = 65, DRAFTD_NOTHING = -1, DRAFTD_LISTING = 0 };

enum draftd_health { DRAFTD_UNPROBED, DRAFTD_FIT, DRAFTD_DRAINED };

struct draftd_device {
    char name[24];         /* "cpu", "cuda:0" */
    char description[160]; /* of a GPU, its name; the CPU's is made when asked for */
    char driver[32], capability[16];
    uint64_t memory_bytes, free_bytes;
    enum draftd_health health; /* of the CPU: FIT */
    bool listed;               /* the last listing named it */
    char reason[512];          /* why it is DRAINED */
    int64_t probe_at_ms;       /* DRAINED: when it is tried again */
};

struct draftd_worker;

struct draftd_devices {
    struct draftd_device device[DRAFTD_MAX_DEVICES]; /* [DRAFTD_CPU], then cuda:0 ... */
    int count;
    bool listed;       /* a listing has ended */
    char no_gpu[1024]; /* why it found none */
    bool list;         /* it is to be made (again) */
    int64_t list_at_ms;
    const struct draftd_worker *prober; /* NULL: none runs */
    int probing;                        /* which GPU; DRAFTD_LISTING: which there are; DRAFTD_NOTHING */
};

#endif
