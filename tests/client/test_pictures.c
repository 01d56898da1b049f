#include <cairo.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "picture_grid.h"
#include "plot.h"

#ifdef __SANITIZE_ADDRESS__
/* fontconfig keeps a cache for the life of the process. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libfontconfig";
}
#endif

static const char out[] = BUILD "/test_pictures.png";

struct bytes {
    uint8_t data[1 << 16];
    size_t count;
};

static cairo_status_t append(void *context, const unsigned char *data, unsigned length)
{
    struct bytes *bytes = context;
    if (bytes->count + length > sizeof bytes->data)
        return CAIRO_STATUS_NO_MEMORY;
    memcpy(bytes->data + bytes->count, data, length);
    bytes->count += length;
    return CAIRO_STATUS_SUCCESS;
}

/* A picture whose left half is one colour and whose right half another. */
static void make_png(int size, double hue, struct bytes *bytes)
{
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, size, size);
    cairo_t *cr = cairo_create(surface);
    cairo_set_source_rgb(cr, hue, 0, 1 - hue);
    cairo_paint(cr);
    cairo_set_source_rgb(cr, 0, 1, 0);
    cairo_rectangle(cr, size / 2, 0, size / 2, size);
    cairo_fill(cr);
    cairo_destroy(cr);
    bytes->count = 0;
    cairo_surface_write_to_png_stream(surface, append, bytes);
    cairo_surface_destroy(surface);
}

static uint32_t pixel(cairo_surface_t *surface, int x, int y)
{
    const unsigned char *data = cairo_image_surface_get_data(surface);
    uint32_t value;
    memcpy(&value, data + (size_t)y * (size_t)cairo_image_surface_get_stride(surface) + 4 * (size_t)x, 4);
    return value & 0xffffff;
}

/* How many pixels of the picture are of this colour. */
static long count_colour(cairo_surface_t *surface, uint32_t colour)
{
    long count = 0;
    for (int y = 0; y < cairo_image_surface_get_height(surface); y++)
        for (int x = 0; x < cairo_image_surface_get_width(surface); x++)
            count += pixel(surface, x, y) == colour;
    return count;
}

static void test_pictures__small_pictures_are_enlarged_by_a_whole_factor(void **state)
{
    static struct bytes red, blue;
    struct draft_grid grid = {.title = "title", .note = "a note"};
    struct draft_error err = {0};
    (void)state;
    make_png(64, 1, &red);
    make_png(64, 0, &blue);
    draft_grid_init(&grid, 2, 2);
    for (int i = 0; i < 3; i++) { /* the fourth place stays empty */
        grid.cells[i].png = i == 1 ? blue.data : red.data;
        grid.cells[i].bytes = i == 1 ? blue.count : red.count;
    }
    assert_true(draft_grid_png(&grid, out, &err));
    draft_grid_clear(&grid);
    cairo_surface_t *made = cairo_image_surface_create_from_png(out);
    assert_int_equal(cairo_surface_status(made), CAIRO_STATUS_SUCCESS);
    /* Exactly as many pure pixels as whole enlargement gives: nothing was smoothed. 64 -> 192 pixels. */
    assert_int_equal(count_colour(made, 0xff0000), 2 * 192 * 96);
    assert_int_equal(count_colour(made, 0x0000ff), 192 * 96);
    assert_int_equal(count_colour(made, 0x00ff00), 3 * 192 * 96);
    cairo_surface_destroy(made);
    unlink(out);
}

static void test_pictures__a_broken_png_is_refused_and_writes_nothing(void **state)
{
    static struct bytes good;
    struct draft_grid grid = {.title = ""};
    struct draft_error err = {0};
    (void)state;
    make_png(8, 1, &good);
    draft_grid_init(&grid, 1, 1);
    grid.cells[0].png = good.data;
    for (size_t cut = 0; cut < good.count - 12; cut += 7) { /* the last 12 bytes say only that it ends */
        err = (struct draft_error){0};
        grid.cells[0].bytes = cut;
        assert_false(draft_grid_png(&grid, out, &err));
        assert_int_equal(err.code, DRAFT_DATA_LOSS);
    }
    assert_int_not_equal(access(out, F_OK), 0);
    draft_grid_clear(&grid);
}

static void test_pictures__a_figure_shows_its_lines_in_their_colours(void **state)
{
    static struct draft_figure figure;
    double x[50], y[50], level[50];
    struct draft_error err = {0};
    (void)state;
    for (int i = 0; i < 50; i++) {
        x[i] = i;
        y[i] = i == 20 ? NAN : sin(i / 8.0);
        level[i] = 0.2;
    }
    figure = (struct draft_figure){.title = "Title", .note = "note", .count = 2, .columns = 2};
    figure.axes[0] =
        (struct draft_axes){.title = "left", .x_label = "step", .y_label = "y", .whole_x = true, .count = 2};
    figure.axes[0].lines[0] = (struct draft_line){
        .label = "one", .x = x, .y = y, .count = 50, .colour = {1, 0, 0}, .style = DRAFT_LINE_MARKED};
    figure.axes[0].lines[1] = (struct draft_line){
        .label = "two", .x = x, .y = level, .count = 50, .colour = {0, 0, 1}, .style = DRAFT_LINE_DASHED};
    figure.axes[1] = (struct draft_axes){.title = "empty", .x_label = "x", .y_label = "y"};
    assert_true(draft_figure_png(&figure, out, &err));
    cairo_surface_t *made = cairo_image_surface_create_from_png(out);
    assert_int_equal(cairo_surface_status(made), CAIRO_STATUS_SUCCESS);
    assert_int_equal(cairo_image_surface_get_width(made), 1920);
    assert_true(count_colour(made, 0xff0000) > 1000);
    assert_true(count_colour(made, 0x0000ff) > 200);
    assert_true(count_colour(made, 0xffffff) > 1000000);
    cairo_surface_destroy(made);
    unlink(out);
}

static void test_pictures__odd_series_do_not_break_a_figure(void **state)
{
    static struct draft_figure figure;
    static struct draft_axes axes;
    double one[] = {3}, nan[] = {NAN, NAN}, huge[] = {-1e300, 1e300}, inf[] = {INFINITY, 2}, x[] = {0, 1};
    const struct draft_line lines[] = {{.x = one, .y = one, .count = 1},
                                       {.x = x, .y = nan, .count = 2},
                                       {.x = x, .y = huge, .count = 2},
                                       {.x = x, .y = inf, .count = 2},
                                       {.x = x, .y = x, .count = 0}};
    struct draft_error err = {0};
    FILE *null = fopen("/dev/null", "w");
    struct draft_terminal terminal = {.out = null, .utf8 = true};
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        for (int style = DRAFT_LINE; style <= DRAFT_LINE_DASHED; style++) {
            axes =
                (struct draft_axes){.x_label = "x\xff", .y_label = "y", .title = "t", .count = 1, .lines = {lines[i]}};
            axes.lines[0].style = (enum draft_line_style)style;
            axes.lines[0].label = "l";
            figure = (struct draft_figure){.title = "t", .count = 1, .axes = {axes}, .width = 300, .height = 200};
            assert_true(draft_figure_png(&figure, out, &err));
            draft_axes_print(&axes, &terminal, 40, 6);
        }
    fclose(null);
    unlink(out);
}

static void test_pictures__a_figure_in_a_folder_that_is_not_there_fails(void **state)
{
    static struct draft_figure figure = {.title = "t", .count = 0};
    struct draft_error err = {0};
    (void)state;
    assert_false(draft_figure_png(&figure, "/nowhere/at/all.png", &err));
    assert_non_null(strstr(err.message, "/nowhere/at/all.png"));
}

static void test_pictures__a_rising_line_goes_up_on_a_terminal(void **state)
{
    static struct draft_axes axes;
    double x[] = {0, 1, 2, 3}, y[] = {0, 1, 2, 3};
    char *text;
    size_t size;
    (void)state;
    FILE *file = open_memstream(&text, &size);
    struct draft_terminal plain = {.out = file};
    axes = (struct draft_axes){.title = "t", .x_label = "x", .y_label = "y", .count = 1};
    axes.lines[0] = (struct draft_line){.x = x, .y = y, .count = 4};
    draft_axes_print(&axes, &plain, 40, 8);
    fclose(file);
    /* Row by row from the top, the first letter of each row lies further left. */
    int rows = 0;
    long last = 1000;
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *first = strchr(line, 'a');
        if (!first)
            continue;
        assert_true(first - line < last);
        last = first - line;
        rows++;
    }
    assert_int_equal(rows, 8);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pictures__small_pictures_are_enlarged_by_a_whole_factor),
        cmocka_unit_test(test_pictures__a_broken_png_is_refused_and_writes_nothing),
        cmocka_unit_test(test_pictures__a_figure_shows_its_lines_in_their_colours),
        cmocka_unit_test(test_pictures__odd_series_do_not_break_a_figure),
        cmocka_unit_test(test_pictures__a_figure_in_a_folder_that_is_not_there_fails),
        cmocka_unit_test(test_pictures__a_rising_line_goes_up_on_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
