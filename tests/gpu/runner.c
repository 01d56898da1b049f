/*
 * gpu_run [options]: see runner.h, and README.md for its use. tests/gpu/run starts it.
 *
 *   --programs FOLDER   where the programs lie (default: this one's own folder)
 *   --out FOLDER        where the report goes (default: tests/gpu/reports)
 *   --device NAME       (default: cuda:0)
 *   --only PREFIX       parts whose name begins so, and "device"; may be given several times
 *   --budget SECONDS    for everything (default: 460); a part that would begin later is not run
 *   --limit NAME=SECONDS  one part's own limit
 *   --host PLUGIN       over the fakes: this plugin in place of the real one, small sizes
 *   --spoil OP          makes one op wrong, to see that it is found
 *   --list              the parts and what each shows
 *
 * Exit status: 0 passed, 1 something failed, 2 wrong use, 77 no CUDA device.
 */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runner.h"

enum { MAX_WORDS = 48, MAX_GIVEN = 16 };

struct settings {
    const char *programs, *out, *device, *host, *spoil;
    const char *only[MAX_GIVEN], *limits[MAX_GIVEN];
    int only_count, limit_count;
    double budget;
    char models[64]; /* a folder in /tmp */
};

/* --- One part -------------------------------------------------------------------------------------------------------
 */

struct listening {
    struct finished *f;
    char current[64]; /* the item that has begun; "": none */
    char last_json[LINE_BYTES], last_line[400];
};

static void add_item(struct finished *f, const char *name, const char *result, const char *why)
{
    if (!f->items)
        f->items = json_array();
    json_t *item = json_pack("{ss ss}", "name", name, "result", result);
    if (*why)
        json_object_set_new(item, "why", json_string(why));
    json_array_append_new(f->items, item);
}

static void hear(void *context, const char *line)
{
    struct listening *l = context;
    char name[64], result[16];
    int after = 0;
    if (sscanf(line, "@ %63s %15s %n", name, result, &after) >= 2) {
        bool begins = !strcmp(result, "begins");
        snprintf(l->current, sizeof l->current, "%s", begins ? name : "");
        if (!begins)
            add_item(l->f, name, result, line + after);
        return;
    }
    if (line[0] == '{')
        snprintf(l->last_json, sizeof l->last_json, "%s", line);
    else if (strspn(line, " ") != strlen(line))
        snprintf(l->last_line, sizeof l->last_line, "%.399s", line + strspn(line, " "));
}

static const char *filled(const char *word, const struct settings *s, char *buffer, size_t size)
{
    const struct {
        const char *mark, *value;
    } marks[] = {{"{device}", s->device}, {"{models}", s->models}, {"{spoil}", s->spoil}};
    for (int i = 0; i < 3; i++) {
        const char *at = strstr(word, marks[i].mark);
        if (at) {
            snprintf(buffer, size, "%.*s%s%s", (int)(at - word), word, marks[i].value, at + strlen(marks[i].mark));
            return buffer;
        }
    }
    return word;
}

/* The command's words; the program from our folder when it lies there. `after`: the item to go on behind. */
static void split(const char *command, const char *after, const struct settings *s, char **words)
{
    char text[1024], buffer[1024], program[1024];
    int count = 0;
    snprintf(text, sizeof text, "%s", command);
    for (char *save = NULL, *word = strtok_r(text, " ", &save); word && count < MAX_WORDS - 3;
         word = strtok_r(NULL, " ", &save)) {
        snprintf(program, sizeof program, "%.500s/%.500s", s->programs, word);
        bool ours = count == 0 && access(program, X_OK) == 0;
        words[count++] = strdup(ours ? program : filled(word, s, buffer, sizeof buffer));
    }
    if (after && *after) {
        words[count++] = strdup("--after");
        words[count++] = strdup(after);
    }
    words[count] = NULL;
}

/* A part of items that ended in the middle of one goes on behind it, within the part's limit. */
static void run_part(const char *command, const struct settings *s, struct finished *f)
{
    static struct listening l;
    static struct ended ended;
    char after[64] = "";
    double left = f->limit, start = seconds_now();
    enum outcome worst = PASSED;
    l = (struct listening){.f = f};
    for (;;) {
        char *words[MAX_WORDS];
        split(command, after, s, words);
        l.current[0] = 0;
        run_process(words, left, hear, &l, &ended);
        for (int i = 0; words[i]; i++)
            free(words[i]);
        worst = outcome_is_bad(worst) ? worst : ended.outcome;
        left = f->limit - (seconds_now() - start);
        if (!f->part->items || !l.current[0] || !outcome_is_bad(ended.outcome))
            break;
        add_item(f, l.current, outcome_name(ended.outcome), l.last_line);
        snprintf(after, sizeof after, "%s", l.current);
        if (ended.outcome == TIMED_OUT || left <= 0)
            break;
    }
    f->outcome = worst;
    f->seconds = seconds_now() - start;
    f->status = ended.status;
    f->signal = ended.signal;
    f->data = json_loads(l.last_json, 0, NULL);
    memcpy(f->tail, ended.tail, sizeof f->tail);
    if (worst == TIMED_OUT)
        snprintf(f->why, sizeof f->why, "no end after %.3g s", f->limit);
    else if (worst == CRASHED)
        snprintf(f->why, sizeof f->why, "ended by signal %d (%s)%s%.300s", ended.signal, strsignal(ended.signal),
                 l.last_line[0] ? " after: " : "", l.last_line);
    else if (worst != PASSED)
        snprintf(f->why, sizeof f->why, "%.399s", f->items && !l.last_line[0] ? "see its items" : l.last_line);
}

/* --- All ------------------------------------------------------------------------------------------------------------
 */

static bool wanted(const struct part *part, const struct settings *s)
{
    if (s->only_count == 0 || !strcmp(part->name, "device"))
        return true;
    for (int i = 0; i < s->only_count; i++)
        if (!strncmp(part->name, s->only[i], strlen(s->only[i])))
            return true;
    return false;
}

static double limit_of(const struct part *part, const struct settings *s)
{
    size_t length = strlen(part->name);
    for (int i = 0; i < s->limit_count; i++)
        if (!strncmp(s->limits[i], part->name, length) && s->limits[i][length] == '=')
            return strtod(s->limits[i] + length + 1, NULL);
    return part->limit;
}

static void say(const struct finished *f)
{
    printf("%-24s %-10s %6.1f s%s%s\n", f->part->name, outcome_name(f->outcome), f->seconds, f->why[0] ? "  " : "",
           f->why);
    fflush(stdout);
}

/* False: there is no device, and nothing else was begun. */
static bool run_all(struct run *run, const struct settings *s)
{
    double start = seconds_now();
    for (int i = 0; i < part_count && run->count < MAX_PARTS; i++) {
        const char *command = run->host ? parts[i].host : parts[i].command;
        if (!command || !wanted(&parts[i], s))
            continue;
        struct finished *f = &run->part[run->count++];
        double left = s->budget - (seconds_now() - start);
        *f = (struct finished){.part = &parts[i], .limit = limit_of(&parts[i], s)};
        f->limit = f->limit < left ? f->limit : left;
        if (left > 1)
            run_part(command, s, f);
        else
            snprintf(f->why, sizeof f->why, "the time of the whole run, %.0f s, was up", s->budget);
        say(f);
        if (strcmp(parts[i].name, "device") != 0)
            continue;
        run->device = f->outcome == PASSED ? f->data : NULL;
        if (f->outcome == SKIPPED)
            return false;
    }
    run->seconds = seconds_now() - start;
    return true;
}

static bool write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    bool good = file && text && fputs(text, file) >= 0;
    return file && fclose(file) == 0 && good;
}

/* <out>/2026-11-30T2145-nvidia-h200.json and .txt */
static bool write_report(const struct run *run, const struct settings *s)
{
    const char *name = json_string_value(json_object_get(run->device, "name"));
    char stem[1024], path[1100], slug[64] = "";
    for (size_t i = 0; name && name[i] && i + 1 < sizeof slug; i++)
        slug[i] = name[i] >= 'A' && name[i] <= 'Z'   ? (char)(name[i] + 32)
                  : name[i] == ' ' || name[i] == '/' ? '-'
                                                     : name[i];
    snprintf(stem, sizeof stem, "%.600s/%.4s%.2s%.2sT%.2s%.2s-%s", s->out, run->started, run->started + 5,
             run->started + 8, run->started + 11, run->started + 14, *slug ? slug : "no-device");
    json_t *report = report_of(run);
    char *page = page_of(report);
    mkdir(s->out, 0755);
    snprintf(path, sizeof path, "%s.json", stem);
    bool good = json_dump_file(report, path, JSON_INDENT(1) | JSON_REAL_PRECISION(7)) == 0;
    printf("\n%s\nreport: %s", page ? page : "", path);
    snprintf(path, sizeof path, "%s.txt", stem);
    good = write_text(path, page) && good;
    printf(" and .txt\n");
    free(page);
    json_decref(report);
    if (!good)
        fprintf(stderr, "gpu_run: the report could not be written to %s: %s\n", s->out, strerror(errno));
    return good;
}

static void list(void)
{
    for (int i = 0; i < part_count; i++)
        printf("%-24s %4d s  %s\n", parts[i].name, parts[i].limit, parts[i].shows);
}

static bool parse(int argc, char **argv, struct settings *s)
{
    static const struct option options[] = {
        {"programs", required_argument, NULL, 'p'}, {"out", required_argument, NULL, 'o'},
        {"device", required_argument, NULL, 'd'},   {"only", required_argument, NULL, 'n'},
        {"budget", required_argument, NULL, 'b'},   {"limit", required_argument, NULL, 'l'},
        {"host", required_argument, NULL, 'h'},     {"spoil", required_argument, NULL, 's'},
        {"list", no_argument, NULL, 'L'},           {NULL, 0, NULL, 0}};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == 'p')
            s->programs = optarg;
        else if (o == 'o')
            s->out = optarg;
        else if (o == 'd')
            s->device = optarg;
        else if (o == 'n' && s->only_count < MAX_GIVEN)
            s->only[s->only_count++] = optarg;
        else if (o == 'b')
            s->budget = strtod(optarg, NULL);
        else if (o == 'l' && s->limit_count < MAX_GIVEN)
            s->limits[s->limit_count++] = optarg;
        else if (o == 'h')
            s->host = optarg;
        else if (o == 's')
            s->spoil = optarg;
        else if (o == 'L') {
            list();
            exit(0);
        } else
            return false;
    }
    return optind == argc;
}

/* The models are gigabytes: they go whatever happens. */
static void remove_models(const struct settings *s)
{
    char *words[] = {"rm", "-rf", (char *)(uintptr_t)s->models, NULL};
    static struct ended ended;
    run_process(words, 60, NULL, NULL, &ended);
}

int main(int argc, char **argv)
{
    static struct run run;
    static char self[1024], started[32];
    struct settings s = {.out = "tests/gpu/reports", .device = "cuda:0", .spoil = "-", .budget = 460};
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    s.programs = n > 0 ? dirname(self) : ".";
    if (!parse(argc, argv, &s)) {
        fprintf(stderr, "usage: gpu_run [--device NAME] [--only PREFIX] [--list] ... (tests/gpu/README.md)\n");
        return 2;
    }
    time_t now = time(NULL);
    strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    run.started = started;
    run.host = s.host != NULL;
    if (s.host) {
        setenv("DRAFT_CUDA_PLUGIN", s.host, 1);
        setenv("FAKE_CUDA_MEMORY", "1073741824", 0); /* "full" fills it */
    }
    snprintf(s.models, sizeof s.models, "/tmp/gpu_run_XXXXXX");
    if (!mkdtemp(s.models)) {
        fprintf(stderr, "gpu_run: cannot make a folder in /tmp: %s\n", strerror(errno));
        return 1;
    }
    bool there = run_all(&run, &s);
    remove_models(&s);
    if (!there) {
        printf("skipped: no CUDA device\n");
        return 77;
    }
    return write_report(&run, &s) && !run_failed(&run) ? 0 : 1;
}
