/*
 * `draft bench`: a job of a few steps, followed to its end and measured, and nothing left of it. What it ran on is a
 * draftd of our own in a folder of its own, or the user's.
 */
#ifndef DRAFT_CLIENT_BENCH_H
#define DRAFT_CLIENT_BENCH_H

#include <stdio.h>

#include "command.h"
#include "jobs.h"
#include "private_daemon.h"

struct draft_bench {
    struct draft_context *cx;
    char folder[64]; /* in /tmp: the prompts, and a private daemon's state; removed at the end */
    struct draft_private_daemon daemon;
    struct draft_rpc *rpc;   /* the private daemon's, or the user's (then borrowed from cx) */
    bool own;                /* the daemon */
    bool interrupted;        /* while the job was submitted */
    char id[DRAFT_ID_BYTES]; /* of the job; "": none */
};

/* Means over the measured steps; NaN where the worker did not say. Seconds are of one update. */
struct draft_bench_numbers {
    char device[64];       /* that the job ran on: "cpu", "cuda:0" */
    char description[256]; /* of it: processor, instruction set, threads; a GPU's name */
    const char *precision; /* that it computed in */
    double step;           /* all phases and what is between them */
    double sample, forward, backward, optimizer;
    double first_step;    /* prepares weights; not among the measured ones */
    double opening;       /* from the worker's start to its first step */
    double it_per_second; /* denoising steps of one picture, in the sampling phase */
    double samples_per_second;
    double peak_bytes;      /* anonymous memory of the worker */
    double estimated_bytes; /* what submit said */
    int steps;              /* measured */
};

/* Makes the folder and its prompts, which is all that --profile needs. Close in any case. */
bool draft_bench_place(struct draft_bench *bench, struct draft_status *st);
/* Makes the folder and its prompts; starts the private daemon unless `own` is false. Close in any case. */
bool draft_bench_open(struct draft_bench *bench, bool own, struct draft_status *st);
/* "<folder>/prompts.txt" */
const char *draft_bench_prompts(const struct draft_bench *bench, char path[128]);
/* Submits, follows it live on stderr, measures. `job` gets the job as it ended, on the heap. */
bool draft_bench_run(struct draft_bench *bench, const Draftd__V1__JobSpec *spec, draft_job **job,
                     struct draft_bench_numbers *numbers, struct draft_status *st);

/* Ends and deletes the job, stops the private daemon, removes the folder; also after a Ctrl-C. */
void draft_bench_close(struct draft_bench *bench);

void draft_bench_print(const struct draft_bench_numbers *numbers, const draft_job *job,
                       const struct draft_terminal *terminal);
bool draft_bench_write_json(const struct draft_bench_numbers *numbers, const draft_job *job, const char *path,
                            struct draft_error *err);

#endif
