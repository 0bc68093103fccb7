// Panics where it is asked to.

#include "hookline.h"

HL_PRE_QUERY(in) {
    HL_MUST(in->query.len < 10);
    return hl_block(in->query);
}
