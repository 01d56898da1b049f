#include <string.h>

#include "demo.h"
#include "interrupt.h"

static const struct draft_option options[] = {
    {.name = "dir",
     .value = DRAFT_VALUE_STRING,
     .metavar = "DIR",
     .help = "where everything goes (default: ./draft-demo)"},
    {.name = "sweep", .help = "several KL weights and none, and the figures of reward against diversity"},
    {.name = "demo-dir",
     .value = DRAFT_VALUE_PATH,
     .metavar = "DIR",
     .help = "the demo model (default: the one installed or in the source tree)"},
    {.name = "", .help = "Other settings than the demo's own, to try things"},
    {.name = "prompt", .value = DRAFT_VALUE_STRING, .metavar = "TEXT", .help = "what to draw (default \"an animal\")"},
    {.name = "kl-coeff",
     .value = DRAFT_VALUE_DOUBLE,
     .metavar = "X",
     .help = "weight of the KL; with --sweep several, in falling order",
     .repeat = true},
    {.name = "steps", .value = DRAFT_VALUE_INT, .metavar = "N", .help = "updates"},
    {.name = "lr", .value = DRAFT_VALUE_DOUBLE, .metavar = "X", .help = "learning rate"},
    {.name = "batch", .value = DRAFT_VALUE_INT, .metavar = "N", .help = "pictures an update"},
    {.name = "rank", .value = DRAFT_VALUE_INT, .metavar = "N", .help = "LoRA rank"},
    {.name = "eval-every", .value = DRAFT_VALUE_INT, .metavar = "N", .help = "steps between two evaluations"},
    {.name = "eval-seeds", .value = DRAFT_VALUE_INT, .metavar = "N", .help = "pictures of an evaluation"},
    {.name = "seed", .value = DRAFT_VALUE_UINT, .metavar = "N", .help = "seed of noise and initial weights"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {options, NULL};

enum { KL_MOST = 16 };

/* The table's settings with what the command line changes; sweep[] holds given KL weights. */
static struct draft_demo_settings settings_of(const struct draft_arguments *arguments, bool sweep, double kl[KL_MOST])
{
    struct draft_demo_settings s = sweep ? draft_demo_sweep : draft_demo_single;
    int count = 0;
    s.prompt = draft_arguments_string(arguments, "prompt", s.prompt);
    s.minutes *= (double)draft_arguments_int(arguments, "steps", s.steps) / s.steps;
    s.steps = (int)draft_arguments_int(arguments, "steps", s.steps);
    s.learning_rate = draft_arguments_double(arguments, "lr", s.learning_rate);
    s.micro_batch = s.batch = (int)draft_arguments_int(arguments, "batch", s.batch);
    s.rank = (int)draft_arguments_int(arguments, "rank", s.rank);
    s.eval_every = (int)draft_arguments_int(arguments, "eval-every", s.eval_every);
    s.eval_seeds = (int)draft_arguments_int(arguments, "eval-seeds", s.eval_seeds);
    const char *seed = draft_arguments_string(arguments, "seed", NULL);
    if (seed)
        draft_parse_uint(seed, &s.seed);
    for (int i = 0; i < arguments->count && count < KL_MOST; i++)
        if (!strcmp(arguments->given[i].option->name, "kl-coeff"))
            draft_parse_double(arguments->given[i].text, &kl[count++]);
    if (count > 0) {
        s.kl_coeff = kl[0];
        s.sweep = kl;
        s.sweep_count = count;
    }
    return s;
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    bool sweep = draft_arguments_has(arguments, "sweep");
    double kl[KL_MOST];
    const struct draft_demo_settings settings = settings_of(arguments, sweep, kl);
    struct draft_demo demo = {.cx = cx, .settings = &settings};
    struct draft_status st = {0};
    int code;
    draft_interrupt_install();
    if (!draft_demo_open(&demo, draft_arguments_string(arguments, "dir", "draft-demo"),
                         draft_arguments_string(arguments, "demo-dir", NULL), &st))
        code = draft_report(cx, &st);
    else
        code = sweep ? draft_demo_run_sweep(&demo) : draft_demo_run_single(&demo);
    if (draft_interrupted()) {
        fprintf(cx->err.out, "stopping the daemon, which saves a checkpoint; the same command goes on from there\n");
        code = DRAFT_EXIT_INTERRUPTED;
    }
    draft_interrupt_clear();
    draft_demo_close(&demo);
    return code;
}

const struct draft_command draft_command_demo = {
    .name = "demo",
    .group = DRAFT_GROUP_START,
    .summary = "train a small built-in model and show everything, in minutes",
    .words = "try example",
    .usage = "[--sweep] [--dir DIR]",
    .about =
        "Starts a private daemon, trains the built-in emoji model on the general prompt \"an animal\" with DRaFT+, "
        "shows it live, asks for pictures half-way, then draws the curve and a grid of base and tuned pictures and "
        "saves the LoRA. Everything stays in the folder for a look; the daemon is stopped at the end.\n\n"
        "With --sweep it trains one job per KL weight and draws diversity and reward over the steps, reward against "
        "diversity, and seeds x models. Interrupted, it goes on where it was when run again in the same folder.",
    .examples = "  draft demo\n"
                "  draft demo --dir /tmp/demo\n"
                "  draft demo --sweep\n"
                "  draft demo --prompt \"a bird\" --kl-coeff 0 --steps 100 --dir birds\n",
    .options = tables,
    .least = 0,
    .most = 0,
    .run = run,
};
