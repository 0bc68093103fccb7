// Looks for a rule that is not there.

#include "hookline.h"

__attribute__((export_name("custom_hook"))) int64_t custom_hook(const char *at, size_t len) {
    (void)at;
    if (len) hl_fail(HL("the rule is missing"));
    return 0;
}
