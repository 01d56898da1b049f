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
    {.name = NULL},
};
static const struct draft_option *const tables[] = {options, NULL};

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    bool sweep = draft_arguments_has(arguments, "sweep");
    struct draft_demo demo = {.cx = cx, .settings = sweep ? &draft_demo_sweep : &draft_demo_single};
    struct draft_status st = {0};
    int code;
    draft_interrupt_install();
    if (!draft_demo_open(&demo, draft_arguments_string(arguments, "dir", "draft-demo"),
                         draft_arguments_string(arguments, "demo-dir", NULL), &st))
        code = draft_report(cx, &st);
    else
        code = sweep ? draft_demo_run_sweep(&demo) : draft_demo_run_single(&demo);
    if (draft_interrupted()) {
        fprintf(cx->err.out,
                "stopping the daemon, which saves a checkpoint; the same command in %s goes on from there\n",
                *demo.dir ? demo.dir : "the same folder");
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
    .usage = "[--sweep] [--dir DIR]",
    .about =
        "Starts a private daemon, trains the built-in emoji model on the general prompt \"an animal\" with DRaFT+, "
        "shows it live, asks for pictures half-way, then draws the curve and a grid of base and tuned pictures and "
        "saves the LoRA. Everything stays in the folder for a look; the daemon is stopped at the end.\n\n"
        "With --sweep it trains one job per KL weight and draws diversity and reward over the steps, reward against "
        "diversity, and seeds x models. Interrupted, it goes on where it was when run again in the same folder.",
    .examples = "  draft demo\n"
                "  draft demo --dir /tmp/demo\n"
                "  draft demo --sweep\n",
    .options = tables,
    .least = 0,
    .most = 0,
    .run = run,
};
