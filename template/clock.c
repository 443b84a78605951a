/* strftime, of a time that is passed in, with the names of the C locale. */
#include "template/template_priv.h"

#include <stdio.h>

static const char *const months[] = {"January", "February", "March",     "April",   "May",      "June",
                                     "July",    "August",   "September", "October", "November", "December"};
static const char *const days[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};

/* Sakamoto's method; 0: Sunday. */
static int day_of_week(const template_time *t)
{
    static const int shift[] = {0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4};
    const int year = t->year - (t->month < 3);

    return (year + year / 4 - year / 100 + year / 400 + shift[t->month - 1] + t->day) % 7;
}

static int day_of_year(const template_time *t)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    const bool leap = (t->year % 4 == 0 && t->year % 100 != 0) || t->year % 400 == 0;

    return before[t->month - 1] + t->day + (leap && t->month > 2);
}

static void number(render *r, builder *b, int n, int width, bool bare)
{
    builder_printf(r, b, bare ? "%d" : width == 2 ? "%02d" : width == 3 ? "%03d" : "%d", n);
}

static void conversion(render *r, builder *b, char c, bool bare, const template_time *t)
{
    const int hour = t->hour % 12 == 0 ? 12 : t->hour % 12;

    switch (c) {
    case 'Y':
        number(r, b, t->year, 4, bare);
        break;
    case 'y':
        number(r, b, t->year % 100, 2, bare);
        break;
    case 'm':
        number(r, b, t->month, 2, bare);
        break;
    case 'd':
        number(r, b, t->day, 2, bare);
        break;
    case 'e':
        builder_printf(r, b, bare ? "%d" : "%2d", t->day);
        break;
    case 'H':
        number(r, b, t->hour, 2, bare);
        break;
    case 'I':
        number(r, b, hour, 2, bare);
        break;
    case 'M':
        number(r, b, t->minute, 2, bare);
        break;
    case 'S':
        number(r, b, t->second, 2, bare);
        break;
    case 'j':
        number(r, b, day_of_year(t), 3, bare);
        break;
    case 'w':
        number(r, b, day_of_week(t), 1, bare);
        break;
    case 'u':
        number(r, b, (day_of_week(t) + 6) % 7 + 1, 1, bare);
        break;
    case 'p':
        builder_add_cstr(r, b, t->hour < 12 ? "AM" : "PM");
        break;
    case 'B':
        builder_add_cstr(r, b, months[t->month - 1]);
        break;
    case 'b':
    case 'h':
        builder_printf(r, b, "%.3s", months[t->month - 1]);
        break;
    case 'A':
        builder_add_cstr(r, b, days[day_of_week(t)]);
        break;
    case 'a':
        builder_printf(r, b, "%.3s", days[day_of_week(t)]);
        break;
    case 'F':
        builder_printf(r, b, "%d-%02d-%02d", t->year, t->month, t->day);
        break;
    case 'T':
        builder_printf(r, b, "%02d:%02d:%02d", t->hour, t->minute, t->second);
        break;
    case 'R':
        builder_printf(r, b, "%02d:%02d", t->hour, t->minute);
        break;
    case 'D':
    case 'x':
        builder_printf(r, b, "%02d/%02d/%02d", t->month, t->day, t->year % 100);
        break;
    case 'X':
        builder_printf(r, b, "%02d:%02d:%02d", t->hour, t->minute, t->second);
        break;
    case 'Z':
    case 'z':
        break; /* the time has no zone */
    case '%':
        builder_add_cstr(r, b, "%");
        break;
    default:
        render_fail(r, "strftime_now: the conversion %%%c is not known", c >= ' ' && c < 0x7f ? c : '?');
    }
}

value time_format(render *r, const template_time *now, const text *format)
{
    builder b = {0};

    for (size_t at = 0; at < format->n && RENDER_OK(r); at++) {
        const bool is_conversion = format->data[at] == '%' && at + 1 < format->n;
        const bool bare = is_conversion && format->data[at + 1] == '-' && at + 2 < format->n;

        if (!is_conversion) {
            builder_add_slice(r, &b, format, at, at + 1);
            continue;
        }
        at += 1 + (size_t)bare;
        conversion(r, &b, format->data[at], bare, now);
    }
    return builder_value(r, &b);
}
