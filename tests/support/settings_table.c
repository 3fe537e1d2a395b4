/* SPDX-License-Identifier: MIT */
/* Prints what is made from the settings' table:
 *
 *     settings_table template > .env.template
 *     settings_table markdown      (the README's table, between its settings marks) */
#include <stdio.h>

#include "settings.h"
#include "text.h"

int main(int argument_count, char **arguments)
{
    static char memory[32 * 1024];
    struct text text = text_in(memory, sizeof memory);
    if (argument_count == 2 && strcmp(arguments[1], "template") == 0) {
        settings_template(&text);
    } else if (argument_count == 2 && strcmp(arguments[1], "markdown") == 0) {
        settings_markdown(&text);
    } else {
        (void)fputs("usage: settings_table template|markdown\n", stderr);
        return 2;
    }
    (void)fwrite(text.data, 1, text.used_bytes, stdout);
    return text.truncated ? 1 : 0;
}
