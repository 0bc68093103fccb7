// audit-log: a log of all statements in which every record holds the hash of the one before.
//
// Whoever changes, removes or inserts a record breaks the chain, and `{"verify": true}` to custom_hook says
// where. The newest 901 records are kept: one in the key "head", which is the newest, and 900 in a ring of
// "record/0" … "record/899". So the log never runs into the cap of 1024 keys. Every 100th hash goes to the
// plugin's log line too: kept elsewhere, it shows even when somebody writes the whole chain anew.
//
// Any number of workers append at once, without a lock: an append first moves the head into the ring, which
// everybody who tries does alike, and then swaps the head if it is still the same. Who loses tries again.

#include "hookline.h"

enum { RING = 900, ATTEMPTS = 100, MAX_FIELD = 512 };

#define GENESIS HL("0000000000000000000000000000000000000000000000000000000000000000")

// A record is {"prev": hash, "hash": sha256(prev + entry), "entry": {"n": number, …}}.
static int64_t number_of(hl_str record) { return json_int(json_find(record, "entry/n"), 0); }

static hl_str hash_of(hl_str record) { return json_text(json_find(record, "hash")); }

static hl_str chained(hl_str prev, hl_str entry) {
    hl_buf both = {0};
    hl_put(&both, prev);
    hl_put(&both, entry);
    return hl_sha256_hex(hl_text(&both));
}

// The record at a key; nothing where there is none, or something else.
static hl_str load(hl_str key) {
    hl_str value = hl_kv_get(key);
    return value.at && json_valid(value) ? value : HL_NONE;
}

static hl_str slot(int64_t number) {
    hl_buf key = {0};
    hl_put(&key, HL("record/"));
    hl_put_int(&key, number % RING);
    return hl_text(&key);
}

// 1 swapped, 0 somebody was faster, less on failure. `was` may be nothing: must not exist.
static int32_t swap(hl_str key, hl_str was, hl_str value) {
    hl_number swapped = hl_kv_compare_and_set(key, was, value);
    return swapped.error ? (int32_t)swapped.error : (int32_t)swapped.value;
}

// Cut to what a record may hold of it, at a character's end.
static hl_str clipped(hl_str text) {
    if (text.len <= MAX_FIELD) return text;
    size_t len = MAX_FIELD;
    while (len > 0 && ((unsigned char)text.at[len] & 0xc0) == 0x80) len--;
    return (hl_str){text.at, len};
}

static void put_clipped(hl_buf *json, const char *name, hl_str object) {
    json_put_member(json, name, clipped(json_text(json_find(object, name))));
}

// Everything of an entry that does not depend on its place in the chain.
static hl_str describe(hl_str context, hl_str outcome) {
    hl_str query = json_text(json_find(context, "query")), who = json_find(context, "hook_context");
    hl_buf json = {0};
    json_put_key(&json, "time_ms");
    hl_put_int(&json, hl_get_time());
    put_clipped(&json, "request_id", who);
    put_clipped(&json, "client_id", who);
    put_clipped(&json, "identity", who);
    put_clipped(&json, "database", who);
    json_put_member(&json, "query", clipped(query));
    json_put_member(&json, "query_sha256", query.at ? hl_sha256_hex(query) : HL_NONE);
    json_put_key(&json, "success");
    hl_put(&json, json_true(json_find(outcome, "success")) ? HL("true") : HL("false"));
    put_clipped(&json, "error", outcome);
    put_clipped(&json, "target_node", outcome);
    json_put_key(&json, "response_bytes");
    hl_put_int(&json, json_int(json_find(outcome, "response_bytes"), 0));
    return hl_text(&json);
}

static hl_str record_after(hl_str head, hl_str description) {
    hl_str prev = head.at ? hash_of(head) : GENESIS;
    hl_buf entry = {0}, record = {0};
    hl_put(&entry, HL("{\"n\":"));
    hl_put_int(&entry, (head.at ? number_of(head) : 0) + 1);
    hl_put_char(&entry, ',');
    hl_put(&entry, description);
    hl_put_char(&entry, '}');
    hl_put_char(&record, '{');
    json_put_member(&record, "prev", prev);
    json_put_member(&record, "hash", chained(prev, hl_text(&entry)));
    json_put_key(&record, "entry");
    hl_put(&record, hl_text(&entry));
    hl_put_char(&record, '}');
    return hl_text(&record);
}

// 1 appended, 0 somebody was faster, less on failure.
static int32_t append(hl_str description) {
    hl_str head = hl_kv_get(HL("head"));
    if (head.at) {
        if (!json_valid(head)) hl_fail(HL("the head is not a record"));
        // Only ever over an older record: a slow worker must not put this one over a newer.
        hl_str key = slot(number_of(head)), there = hl_kv_get(key);
        bool older = !there.at || !json_valid(there) || number_of(there) < number_of(head);
        int32_t moved = older ? swap(key, there, head) : 1;
        if (moved < 1) return moved;
    }
    hl_str record = record_after(head, description);
    int32_t swapped = swap(HL("head"), head, record);
    if (swapped == 1 && number_of(record) % 100 == 0) {
        hl_buf line = {0};
        hl_put(&line, HL("audit head "));
        hl_put_int(&line, number_of(record));
        hl_put_char(&line, ' ');
        hl_put(&line, hash_of(record));
        hl_log(HL_INFO, hl_text(&line));
    }
    return swapped;
}

HL_HOOK(post_query, input) {
    json_walk walk = json_each(input);  // [context, outcome]
    hl_str context = json_next(&walk) ? walk.value : HL_NONE;
    hl_str outcome = json_next(&walk) ? walk.value : HL_NONE;
    hl_str description = describe(context, outcome);
    int32_t appended = 0;
    uintptr_t mark = hl_mark();
    for (int i = 0; i < ATTEMPTS && appended == 0; i++) {
        hl_release(mark);
        appended = append(description);
    }
    if (appended != 1) {
        hl_count(HL("dropped_total"));
        hl_log(HL_ERROR, appended == 0 ? HL("a record was dropped: too many others at once")
                                       : HL("a record was dropped: it cannot be stored"));
    }
    return 0;
}

// Goes back from the head as far as the ring goes. An append at the same time may take the oldest ones away,
// which does not count as a break.
static int64_t verify(void) {
    hl_str head = load(HL("head"));
    int64_t newest = number_of(head), oldest = newest > RING ? newest - RING : 1, broken_at = 0, verified = 0;
    char expected[64];
    bool gone = false;
    if (head.at) memcpy(expected, hash_of(head).at, 64);
    uintptr_t mark = hl_mark();
    for (int64_t n = newest; n >= oldest && !broken_at && !gone; n--, hl_release(mark)) {
        hl_str record = n == newest ? head : load(slot(n)), prev = json_text(json_find(record, "prev"));
        bool good = number_of(record) == n && prev.len == 64 && hl_equal(hash_of(record), (hl_str){expected, 64}) &&
                    hl_equal(chained(prev, json_find(record, "entry")), hash_of(record)) &&
                    (n > 1 || hl_equal(prev, GENESIS));
        gone = !good && number_of(record) == n + RING && number_of(load(HL("head"))) >= n + RING;
        if (good) verified++, memcpy(expected, prev.at, 64);
        else if (!gone) broken_at = n;
    }
    hl_buf json = {0};
    hl_put(&json, broken_at ? HL("{\"intact\":false") : HL("{\"intact\":true"));
    json_put_key(&json, "records");
    hl_put_int(&json, verified);
    json_put_key(&json, "newest");
    hl_put_int(&json, newest);
    json_put_key(&json, "broken_at");
    if (broken_at) hl_put_int(&json, broken_at);
    else hl_put(&json, HL("null"));
    json_put_member(&json, "head", head.at ? hash_of(head) : HL_NONE);
    hl_put_char(&json, '}');
    return hl_answer(&json);
}

// The newest records, newest first.
static int64_t list(int64_t count) {
    hl_buf json = {0};
    hl_put(&json, HL("{\"records\":["));
    hl_str record = load(HL("head"));
    for (int64_t left = count > 100 ? 100 : count; left > 0 && record.at; left--) {
        if (json.at[json.len - 1] == '}') hl_put_char(&json, ',');
        hl_put(&json, record);
        int64_t before = number_of(record) - 1;
        record = before ? load(slot(before)) : HL_NONE;
    }
    hl_put(&json, HL("]}"));
    return hl_answer(&json);
}

// {"verify": true} and {"newest": 10}; anything else is for other plugins.
HL_HOOK(custom_hook, input) {
    if (json_true(json_find(input, "verify"))) return verify();
    int64_t newest = json_int(json_find(input, "newest"), 0);
    return newest > 0 ? list(newest) : 0;
}
