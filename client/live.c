#include "live.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "interrupt.h"
#include "series.h"
#include "text.h"

enum { HISTORY = 4096 };

struct draft_live {
    const struct draft_terminal *terminal;
    struct draft_rpc *rpc;
    char job_id[DRAFT_ID_BYTES];
    struct draft_block block;
    draft_job *job;  /* a copy of the latest */
    double received; /* monotonic seconds when it came */
    double reward[HISTORY];
    size_t rewards;
    int64_t reward_step; /* of the last point in `reward`; -1: none */
    int64_t eval_step;   /* of the last evaluation; -1: none */
    double base_reward, base_kl, base_lpips, eval_reward, eval_kl, eval_lpips;
    int64_t said_step; /* plain lines: the last step told of */
    bool lost, stale;  /* stale: new points are waiting to be fetched */
};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

struct draft_live *draft_live_create(const struct draft_terminal *terminal, struct draft_rpc *rpc, const char *job_id)
{
    struct draft_live *live = calloc(1, sizeof *live);
    if (!live)
        abort();
    live->terminal = terminal;
    live->block.terminal = terminal;
    live->rpc = rpc;
    live->reward_step = live->eval_step = live->said_step = -1;
    live->stale = true;
    live->base_reward = live->base_kl = live->base_lpips = NAN;
    live->eval_reward = live->eval_kl = live->eval_lpips = NAN;
    snprintf(live->job_id, sizeof live->job_id, "%s", job_id);
    return live;
}

static draft_job *copy_job(const draft_job *job)
{
    size_t size = protobuf_c_message_get_packed_size(&job->base);
    uint8_t *bytes = malloc(size + 1);
    if (!bytes)
        abort();
    protobuf_c_message_pack(&job->base, bytes);
    draft_job *copy = draftd__v1__job__unpack(NULL, size, bytes);
    free(bytes);
    return copy;
}

static void add_reward(struct draft_live *live, int64_t step, double value)
{
    if (live->rewards == HISTORY) { /* keep every second: the line shows the whole course */
        for (size_t k = 0; k < HISTORY / 2; k++)
            live->reward[k] = live->reward[2 * k];
        live->rewards = HISTORY / 2;
    }
    live->reward[live->rewards++] = value;
    live->reward_step = step;
}

/* New points since the last look. A failure only means that the numbers stay as they are. Evaluations of a step come
 * after its training point, so the two kinds are asked for apart. */
static void fetch(struct draft_live *live)
{
    static const char *const trained[] = {"reward"}, *const evaluated[] = {"eval/reward", "eval/kl", "eval/lpips"};
    const struct {
        double *base, *last;
    } places[] = {{&live->base_reward, &live->eval_reward},
                  {&live->base_kl, &live->eval_kl},
                  {&live->base_lpips, &live->eval_lpips}};
    struct draft_series_set set;
    struct draft_status st = {0};
    live->stale = false;
    if (!draft_series_fetch(live->rpc, live->job_id, trained, 1, live->reward_step + 1, HISTORY, &set, &st))
        return;
    const struct draft_series *reward = draft_series_find(&set, "reward");
    for (size_t i = 0; reward && i < reward->count; i++)
        add_reward(live, reward->steps[i], reward->values[i]);
    draft_series_clear(&set);
    if (!draft_series_fetch(live->rpc, live->job_id, evaluated, 3, live->eval_step + 1, HISTORY, &set, &st))
        return;
    for (int i = 0; i < 3; i++) {
        const struct draft_series *series = draft_series_find(&set, evaluated[i]);
        if (!series || !series->count)
            continue;
        if (series->steps[0] == 0)
            *places[i].base = series->values[0];
        *places[i].last = draft_series_last(series);
        live->eval_step = series->steps[series->count - 1];
    }
    draft_series_clear(&set);
}

/* The time left, counted down between two reports. */
static double time_left(const struct draft_live *live)
{
    const Draftd__V1__Progress *p = live->job->progress;
    if (!p || p->eta_seconds < 0 || isnan(p->eta_seconds))
        return NAN;
    double left = p->eta_seconds - (seconds() - live->received);
    return left > 0 ? left : 0;
}

static void add(char line[DRAFT_BLOCK_BYTES], const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(char line[DRAFT_BLOCK_BYTES], const char *format, ...)
{
    size_t used = strlen(line);
    va_list args;
    va_start(args, format);
    vsnprintf(line + used, DRAFT_BLOCK_BYTES - used, format, args);
    va_end(args);
}

static void add_value(const struct draft_live *live, char line[DRAFT_BLOCK_BYTES], const char *name, double value,
                      double base)
{
    char text[32], from[32];
    const char *bold = draft_ink(live->terminal, DRAFT_BOLD), *dim = draft_ink(live->terminal, DRAFT_DIM),
               *plain = draft_ink(live->terminal, DRAFT_PLAIN);
    add(line, "%s%s %s%s%s", *line ? "   " : "  ", name, bold, draft_format_number(value, text, sizeof text), plain);
    if (!isnan(base))
        add(line, " %s(base %s)%s", dim, draft_format_number(base, from, sizeof from), plain);
}

static void head_line(const struct draft_live *live, char line[DRAFT_BLOCK_BYTES])
{
    const draft_job *job = live->job;
    const struct draft_terminal *t = live->terminal;
    add(line, "%s%s%s  %s  %s%s%s", draft_ink(t, DRAFT_BOLD), job->id, draft_ink(t, DRAFT_PLAIN), draft_job_title(job),
        draft_ink(t, draft_state_colour(job->state)), draft_state_name(job->state), draft_ink(t, DRAFT_PLAIN));
    if (job->attempt > 1)
        add(line, ", attempt %d", job->attempt);
    if (job->queue_position > 0)
        add(line, ", place %lld in the queue", (long long)job->queue_position);
    if (*job->reason)
        add(line, ": %s", job->reason);
    if (live->lost)
        add(line, "  %s(the daemon is away, trying again)%s", draft_ink(t, DRAFT_YELLOW), draft_ink(t, DRAFT_PLAIN));
}

static void bar_line(const struct draft_live *live, char line[DRAFT_BLOCK_BYTES], int columns)
{
    const Draftd__V1__Progress *p = live->job->progress;
    const struct draft_terminal *t = live->terminal;
    char bar[512], left[32], rate[32];
    double total = p->total_steps > 0 ? (double)p->total_steps : 1, done = (double)p->step;
    /* Inside a step the denoising steps move the bar, which matters when one update takes minutes. */
    if (p->phase_total > 0 && !strcmp(p->phase, "sampling"))
        done += 0.9 * (double)p->phase_done / (double)p->phase_total;
    int width = columns - 52 > 40 ? 40 : columns - 52 < 10 ? 10 : columns - 52;
    draft_bar(done / total, width, t->utf8, bar, sizeof bar);
    add(line, "  %s%s%s%s%s", t->utf8 ? "▕" : "[", draft_ink(t, DRAFT_GREEN), bar, draft_ink(t, DRAFT_PLAIN),
        t->utf8 ? "▏" : "]");
    add(line, " %lld/%lld  %.0f%%", (long long)p->step, (long long)p->total_steps, 100 * fmin(done / total, 1));
    if (p->seconds_per_step > 0)
        add(line, "  %s/step", draft_format_duration(p->seconds_per_step, rate, sizeof rate));
    if (!isnan(time_left(live)))
        add(line, "  %s left", draft_format_duration(time_left(live), left, sizeof left));
}

static void phase_line(const struct draft_live *live, char line[DRAFT_BLOCK_BYTES])
{
    const Draftd__V1__Progress *p = live->job->progress;
    add(line, "  %s%s", draft_ink(live->terminal, DRAFT_DIM), *p->phase ? p->phase : "waiting");
    if (p->phase_total > 0)
        add(line, " %lld/%lld", (long long)p->phase_done, (long long)p->phase_total);
    add(line, "%s", draft_ink(live->terminal, DRAFT_PLAIN));
}

static void draw(struct draft_live *live)
{
    static char lines[6][DRAFT_BLOCK_BYTES];
    int rows, columns, n = 0;
    if (!live->job || !live->terminal->tty)
        return;
    draft_terminal_size(live->terminal, &rows, &columns);
    memset(lines, 0, sizeof lines);
    head_line(live, lines[n++]);
    const Draftd__V1__Progress *p = live->job->progress;
    if (p && p->total_steps > 0) {
        bar_line(live, lines[n++], columns);
        if (!draft_state_ended(live->job->state))
            phase_line(live, lines[n++]);
    }
    if (p && (!isnan(live->eval_reward) || !isnan(p->reward) || p->step > 0)) {
        bool evaluated = !isnan(live->eval_reward);
        add_value(live, lines[n], evaluated ? "eval reward" : "reward", evaluated ? live->eval_reward : p->reward,
                  live->base_reward);
        add_value(live, lines[n], "KL", evaluated ? live->eval_kl : p->kl, NAN);
        add_value(live, lines[n], "LPIPS", evaluated ? live->eval_lpips : p->lpips, live->base_lpips);
        n++;
    }
    if (live->rewards > 1) {
        char spark[512], now[32];
        int width = columns - 28 > 60 ? 60 : columns - 28;
        draft_sparkline(live->reward, live->rewards, width, live->terminal->utf8, spark, sizeof spark);
        add(lines[n++], "  reward %s%s%s %s", draft_ink(live->terminal, DRAFT_CYAN), spark,
            draft_ink(live->terminal, DRAFT_PLAIN),
            draft_format_number(live->reward[live->rewards - 1], now, sizeof now));
    }
    draft_block_draw(&live->block, lines, n);
}

static void stamp(FILE *out)
{
    char when[32];
    fprintf(out, "%s ", draft_format_time(draft_now_us(), when, sizeof when));
}

void draft_live_say(struct draft_live *live, const char *format, ...)
{
    va_list args;
    draft_block_clear(&live->block);
    if (!live->terminal->tty)
        stamp(live->terminal->out);
    va_start(args, format);
    vfprintf(live->terminal->out, format, args);
    va_end(args);
    fputc('\n', live->terminal->out);
    fflush(live->terminal->out);
    draw(live);
}

static void say_state(const struct draft_live *live)
{
    const draft_job *job = live->job;
    stamp(live->terminal->out);
    fprintf(live->terminal->out, "%s %s", job->id, draft_state_name(job->state));
    if (job->attempt > 1)
        fprintf(live->terminal->out, " attempt %d", job->attempt);
    fprintf(live->terminal->out, "%s%s\n", *job->reason ? ": " : "", job->reason);
    fflush(live->terminal->out);
}

static void say_step(struct draft_live *live, int64_t step)
{
    const Draftd__V1__Progress *p = live->job->progress;
    FILE *out = live->terminal->out;
    char value[32];
    live->said_step = step;
    stamp(out);
    fprintf(out, "%s step %lld/%lld", live->job->id, (long long)step, (long long)p->total_steps);
    fprintf(out, " reward %s", draft_format_number(p->reward, value, sizeof value));
    if (!isnan(p->kl))
        fprintf(out, " kl %s", draft_format_number(p->kl, value, sizeof value));
    if (!isnan(p->lpips))
        fprintf(out, " lpips %s", draft_format_number(p->lpips, value, sizeof value));
    if (p->seconds_per_step > 0)
        fprintf(out, " %s/step", draft_format_duration(p->seconds_per_step, value, sizeof value));
    if (!isnan(time_left(live)))
        fprintf(out, " %s left", draft_format_duration(time_left(live), value, sizeof value));
    fputc('\n', out);
    fflush(out);
}

static void tell(struct draft_live *live, const draft_job *before, const Draftd__V1__JobEvent *event)
{
    const draft_job *job = live->job;
    bool plain = !live->terminal->tty;
    if (plain && job->progress && job->progress->step > 0 && job->progress->step != live->said_step)
        say_step(live, job->progress->step);
    if (plain && (!before || before->state != job->state || strcmp(before->reason, job->reason) != 0))
        say_state(live);
    if (event && event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_NOTICE)
        draft_live_say(live, "%s step %lld: %s", job->id, (long long)event->step, event->message);
    if (event && plain && event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_CHECKPOINT)
        draft_live_say(live, "%s checkpoint of step %lld", job->id, (long long)event->step);
    if (event && plain && event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_PREVIEW)
        draft_live_say(live, "%s %s %s", job->id, event->preview_id, event->message);
}

bool draft_live_update(void *context, const draft_job *job, const Draftd__V1__JobEvent *event)
{
    struct draft_live *live = context;
    draft_job *before = live->job;
    live->job = copy_job(job);
    if (!live->job) { /* cannot be: it was unpacked a moment ago */
        live->job = before;
        return true;
    }
    if (!event || event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_PROGRESS ||
        event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_STATE)
        live->received = seconds();
    if (!event || event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_METRICS || draft_state_ended(job->state))
        live->stale = true;
    tell(live, before, event);
    draft_free_message(before);
    return true;
}

void draft_live_tick(void *context)
{
    struct draft_live *live = context;
    if (!live->terminal->tty || !live->job)
        return;
    if (live->stale && !live->lost)
        fetch(live);
    draw(live);
}

void draft_live_connection(void *context, bool lost)
{
    struct draft_live *live = context;
    live->lost = lost;
    if (!live->terminal->tty)
        draft_live_say(live, lost ? "the connection to the daemon broke, trying again"
                                  : "the daemon is back, following from where it broke");
}

struct draft_follow draft_live_callbacks(struct draft_live *live)
{
    return (struct draft_follow){
        .context = live, .update = draft_live_update, .tick = draft_live_tick, .connection = draft_live_connection};
}

void draft_live_close(struct draft_live *live, bool keep)
{
    if (!live)
        return;
    if (keep && live->terminal->tty && live->job) {
        if (live->stale && !live->lost && !draft_interrupted())
            fetch(live);
        draw(live);
    } else {
        draft_block_clear(&live->block);
    }
    draft_free_message(live->job);
    free(live);
}

int draft_watch_job(const struct draft_terminal *terminal, const struct draft_terminal *messages, struct draft_rpc *rpc,
                    const char *job_id)
{
    struct draft_status st = {0};
    draft_interrupt_install();
    struct draft_live *live = draft_live_create(terminal, rpc, job_id);
    struct draft_follow follow = draft_live_callbacks(live);
    draft_job *job = draft_follow_job(rpc, job_id, &follow, &st);
    draft_live_close(live, true);
    if (!job) {
        if (st.code == DRAFT_STATUS_CANCELLED && draft_interrupted()) {
            fprintf(messages->out, "%s goes on without you; `draft watch %s` looks again, `draft cancel %s` stops it\n",
                    job_id, job_id, job_id);
            return DRAFT_EXIT_INTERRUPTED;
        }
        fprintf(messages->out, "draft: %s\n", st.message);
        return draft_status_exit(&st);
    }
    int code = draft_state_exit(job->state);
    draft_free_message(job);
    return code;
}
