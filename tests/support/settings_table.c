/* SPDX-License-Identifier: MIT */
/* Prints what is made from the settings' table:
 *
 *     settings_table template > .env.template
 *     settings_table markdown             (doc/settings.md's table, between its settings marks)
 *     settings_table manual gateway       (the list in doc/man/postern-gateway.1, between its settings marks)
 *     settings_table manual processor */
#include <stdio.h>

#include "settings.h"
#include "text.h"

int main(int argument_count, char **arguments)
{
    static char memory[32 * 1024];
    struct text text = text_in(memory, sizeof memory);
    const char *what = argument_count >= 2 ? arguments[1] : "";
    const char *whose = argument_count >= 3 ? arguments[2] : "";
    if (argument_count == 2 && strcmp(what, "template") == 0) {
        settings_template(&text);
    } else if (argument_count == 2 && strcmp(what, "markdown") == 0) {
        settings_markdown(&text);
    } else if (argument_count == 3 && strcmp(what, "manual") == 0 && strcmp(whose, "gateway") == 0) {
        settings_manual(&text, SETTINGS_GATEWAY);
    } else if (argument_count == 3 && strcmp(what, "manual") == 0 && strcmp(whose, "processor") == 0) {
        settings_manual(&text, SETTINGS_PROCESSOR);
    } else {
        (void)fputs("usage: settings_table template|markdown|manual gateway|manual processor\n", stderr);
        return 2;
    }
    (void)fwrite(text.data, 1, text.used_bytes, stdout);
    return text.truncated ? 1 : 0;
}
