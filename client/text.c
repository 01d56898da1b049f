#include "text.h"

#include <math.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

/* Decodes one UTF-8 code point; a malformed byte counts as one column of its own. */
static size_t decode(const char *text, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    int more = s[0] < 0x80                   ? 0
               : s[0] >= 0xc2 && s[0] < 0xe0 ? 1
               : s[0] >= 0xe0 && s[0] < 0xf0 ? 2
               : s[0] >= 0xf0 && s[0] < 0xf5 ? 3
                                             : -1;
    *code = more <= 0 ? s[0] : (uint32_t)(s[0] & (0x3f >> more));
    for (int i = 1; i <= more; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            *code = s[0];
            return 1;
        }
        *code = *code << 6 | (s[i] & 0x3f);
    }
    return more < 0 ? 1 : (size_t)more + 1;
}

static int columns_of(uint32_t c)
{
    if (c < 0x20 || c == 0x7f)
        return 0;
    if ((c >= 0x300 && c <= 0x36f) || (c >= 0x200b && c <= 0x200f) || (c >= 0xfe00 && c <= 0xfe0f) || c == 0x20e3)
        return 0;
    if ((c >= 0x1100 && c <= 0x115f) || (c >= 0x2e80 && c <= 0xa4cf && c != 0x303f) || (c >= 0xac00 && c <= 0xd7a3) ||
        (c >= 0xf900 && c <= 0xfaff) || (c >= 0xfe30 && c <= 0xfe6f) || (c >= 0xff00 && c <= 0xff60) ||
        (c >= 0xffe0 && c <= 0xffe6) || (c >= 0x1f300 && c <= 0x1f64f) || (c >= 0x1f900 && c <= 0x1f9ff) ||
        (c >= 0x20000 && c <= 0x3fffd))
        return 2;
    return 1;
}

/* The length of the escape sequence at text (ESC [ ... letter), or 0. */
static size_t escape(const char *text)
{
    if (text[0] != '\033' || text[1] != '[')
        return 0;
    size_t n = 2;
    while (text[n] && (text[n] < 0x40 || text[n] > 0x7e))
        n++;
    return text[n] ? n + 1 : n;
}

size_t draft_text_cut(const char *text, int columns)
{
    size_t at = 0;
    int used = 0;
    while (text[at]) {
        uint32_t code;
        size_t n = escape(text + at);
        if (!n) {
            n = decode(text + at, &code);
            int wide = columns_of(code);
            if (used + wide > columns)
                break;
            used += wide;
        }
        at += n;
    }
    return at;
}

int draft_text_width(const char *text)
{
    int used = 0;
    for (size_t at = 0; text[at];) {
        uint32_t code;
        size_t n = escape(text + at);
        if (!n) {
            n = decode(text + at, &code);
            used += columns_of(code);
        }
        at += n;
    }
    return used;
}

void draft_wrap(const char *text, int at, int indent, int width, FILE *out)
{
    if (width < indent + 20)
        width = indent + 20;
    bool first = true;
    fprintf(out, "%*s", indent > at ? indent - at : 0, "");
    at = at > indent ? at : indent;
    while (*text) {
        size_t word = strcspn(text, " \n");
        char copy[256];
        snprintf(copy, sizeof copy, "%.*s", (int)(word < sizeof copy ? word : sizeof copy - 1), text);
        int wide = draft_text_width(copy);
        if (!first && at + 1 + wide > width) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
            first = true;
        }
        fprintf(out, "%s%.*s", first ? "" : " ", (int)word, text);
        at += wide + !first;
        first = false;
        text += word;
        if (*text == '\n') {
            fprintf(out, "\n%*s", text[1] == '\n' ? 0 : indent, "");
            at = indent;
            first = true;
        }
        if (*text)
            text++;
    }
    fputc('\n', out);
}

char *draft_format_number(double value, char *out, size_t size)
{
    if (isnan(value))
        snprintf(out, size, "-");
    else if (isinf(value))
        snprintf(out, size, value > 0 ? "inf" : "-inf");
    else if (value != 0 && (fabs(value) < 1e-3 || fabs(value) >= 1e6))
        snprintf(out, size, "%.3g", value);
    else
        snprintf(out, size, "%.4g", value);
    return out;
}

char *draft_format_fixed(double value, int decimals, char *out, size_t size)
{
    if (isnan(value))
        snprintf(out, size, "-");
    else
        snprintf(out, size, "%.*f", decimals, value);
    return out;
}

char *draft_format_duration(double seconds, char *out, size_t size)
{
    if (!(seconds >= 0) || seconds > 1e9) {
        snprintf(out, size, "-");
        return out;
    }
    long whole = (long)(seconds + 0.5);
    if (seconds < 0.0005)
        snprintf(out, size, "0 s");
    else if (seconds < 0.0995)
        snprintf(out, size, "%.0f ms", 1000 * seconds);
    else if (seconds < 0.995)
        snprintf(out, size, "%.2f s", seconds);
    else if (seconds < 9.95)
        snprintf(out, size, "%.1f s", seconds);
    else if (whole < 60)
        snprintf(out, size, "%ld s", whole);
    else if (whole < 3600)
        snprintf(out, size, "%ldm%02lds", whole / 60, whole % 60);
    else if (whole < 86400)
        snprintf(out, size, "%ldh%02ldm", whole / 3600, whole / 60 % 60);
    else
        snprintf(out, size, "%ldd%02ldh", whole / 86400, whole / 3600 % 24);
    return out;
}

char *draft_format_bytes(uint64_t bytes, char *out, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 1023.5 && unit < 5) {
        value /= 1024;
        unit++;
    }
    snprintf(out, size, unit > 0 && value < 99.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}

char *draft_format_time(int64_t time_us, char *out, size_t size)
{
    time_t seconds = (time_t)(time_us / 1000000);
    struct tm local;
    if (time_us <= 0 || !localtime_r(&seconds, &local) || !strftime(out, size, "%Y-%m-%d %H:%M:%S", &local))
        snprintf(out, size, "-");
    return out;
}

char *draft_format_ago(int64_t time_us, int64_t now_us, char *out, size_t size)
{
    char text[32];
    if (time_us <= 0)
        snprintf(out, size, "-");
    else
        snprintf(
            out, size, "%s ago",
            draft_format_duration(now_us > time_us ? (double)((now_us - time_us) / 1000000) : 0, text, sizeof text));
    return out;
}

int64_t draft_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void append(char *out, size_t size, size_t *used, const char *piece)
{
    size_t n = strlen(piece);
    if (*used + n < size) {
        memcpy(out + *used, piece, n + 1);
        *used += n;
    }
}

void draft_sparkline(const double *values, size_t count, int columns, bool utf8, char *out, size_t size)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const plain[] = {".", ".", ":", "-", "=", "+", "*", "#"};
    double low = INFINITY, high = -INFINITY;
    size_t used = 0, shown = columns < 0 ? 0 : (size_t)columns < count ? (size_t)columns : count;
    for (size_t pass = 0; pass < 2; pass++)
        for (size_t c = 0; c < shown; c++) {
            size_t from = c * count / shown, to = (c + 1) * count / shown, finite = 0;
            double sum = 0;
            for (size_t i = from; i < to; i++)
                if (isfinite(values[i])) {
                    sum += values[i];
                    finite++;
                }
            double mean = finite ? sum / (double)finite : NAN;
            if (pass == 0 && finite) {
                low = fmin(low, mean);
                high = fmax(high, mean);
            } else if (pass == 1) {
                int level = high > low ? (int)(7.999 * (mean - low) / (high - low)) : 3;
                append(out, size, &used, !finite ? " " : utf8 ? blocks[level] : plain[level]);
            }
        }
    if (size > 0 && used == 0)
        out[0] = 0;
}

void draft_bar(double fraction, int columns, bool utf8, char *out, size_t size)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    size_t used = 0;
    if (size > 0)
        out[0] = 0;
    fraction = fraction > 0 ? fmin(fraction, 1) : 0;
    int filled = (int)(fraction * columns * 8 + 1e-9), full = filled / 8, part = utf8 ? filled % 8 : 0;
    for (int i = 0; i < full; i++)
        append(out, size, &used, utf8 ? "█" : "#");
    append(out, size, &used, eighths[part]);
    for (int i = full + (part > 0); i < columns; i++)
        append(out, size, &used, utf8 ? " " : "-");
}
