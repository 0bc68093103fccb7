package hookline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A strict reader of JSON (RFC 8259) for the inputs of hooks. encoding/json would also take a name in other letters
// ("QUERY" for "query"), a number or null where nothing was said, and text that is not UTF-8: a guard would then judge
// something else than what is run. Of repeated names the last one counts, as in most parsers.
type reader struct {
	text []byte
	at   int
}

// maxDepth is how deep values may lie within one another.
const maxDepth = 64

// malformed is what a reader panics with; read makes an error of it.
type malformed string

func read[T any](text []byte, value func(*reader) T) (in T, err error) {
	defer func() {
		if why, ok := recover().(malformed); ok {
			err = errors.New("the input is not what the contract says: " + string(why))
		}
	}()
	if !utf8.Valid(text) {
		panic(malformed("it is not UTF-8"))
	}
	r := reader{text: text}
	in = value(&r)
	if r.space(); r.at != len(text) {
		r.fail("there is more behind its end")
	}
	return in, nil
}

func (r *reader) fail(format string, arguments ...any) {
	panic(malformed(fmt.Sprintf(format, arguments...) + " (byte " + strconv.Itoa(r.at) + ")"))
}

func (r *reader) need(there bool, name string) {
	if !there {
		r.fail("there is no %s", name)
	}
}

func (r *reader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// The next byte that is not blank; 0 at the end.
func (r *reader) peek() byte {
	if r.space(); r.at < len(r.text) {
		return r.text[r.at]
	}
	return 0
}

func (r *reader) take(wanted byte) {
	if r.peek() != wanted {
		r.fail("there should be a %q", wanted)
	}
	r.at++
}

func (r *reader) word(word string) bool {
	r.space()
	if !bytes.HasPrefix(r.text[r.at:], []byte(word)) {
		return false
	}
	r.at += len(word)
	return true
}

func (r *reader) null() bool { return r.word("null") }

// The name of an object's first member; false where it has none.
func (r *reader) first() ([]byte, bool) {
	r.take('{')
	if r.peek() == '}' {
		r.at++
		return nil, false
	}
	return r.key(), true
}

// The name of the next one; false where the object ends.
func (r *reader) more() ([]byte, bool) {
	if r.peek() == '}' {
		r.at++
		return nil, false
	}
	r.take(',')
	return r.key(), true
}

func (r *reader) key() []byte {
	name := r.string()
	r.take(':')
	return name
}

// The bytes of a string; those of the input itself where it has no escapes.
func (r *reader) string() []byte {
	r.take('"')
	start := r.at
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c == '"':
			r.at++
			return r.text[start : r.at-1]
		case c == '\\':
			return r.escaped(start)
		case c < 0x20:
			r.fail("a string has a control character in it")
		default:
			r.at++
		}
	}
	r.fail("a string does not end")
	return nil
}

func (r *reader) escaped(start int) []byte {
	made := bytes.Clone(r.text[start:r.at])
	for r.at < len(r.text) {
		c := r.text[r.at]
		r.at++
		switch {
		case c == '"':
			return made
		case c < 0x20:
			r.fail("a string has a control character in it")
		case c != '\\':
			made = append(made, c)
		default:
			made = utf8.AppendRune(made, r.escape())
		}
	}
	r.fail("a string does not end")
	return nil
}

func (r *reader) escape() rune {
	if r.at == len(r.text) {
		r.fail("a string does not end")
	}
	c := r.text[r.at]
	r.at++
	if at := strings.IndexByte(`"\/bfnrt`, c); at >= 0 {
		return rune("\"\\/\b\f\n\r\t"[at])
	}
	if c != 'u' {
		r.fail("a string has an escape that there is not")
	}
	unit := r.hex4()
	if !utf16.IsSurrogate(unit) {
		return unit
	}
	if !bytes.HasPrefix(r.text[r.at:], []byte(`\u`)) {
		r.fail("a string has half of a character")
	}
	r.at += 2
	both := utf16.DecodeRune(unit, r.hex4())
	if both == utf8.RuneError {
		r.fail("a string has half of a character")
	}
	return both
}

func (r *reader) hex4() rune {
	digits := r.text[r.at:min(r.at+4, len(r.text))]
	number, err := strconv.ParseUint(string(digits), 16, 16)
	if err != nil || len(digits) != 4 {
		r.fail("a string has an escape that there is not")
	}
	r.at += 4
	return rune(number)
}

// Null is as if the text were not there.
func (r *reader) textOrNone() string {
	if r.null() {
		return ""
	}
	return string(r.string())
}

func (r *reader) plainText() string { return string(r.string()) }

func (r *reader) maybeText() *string {
	if r.null() {
		return nil
	}
	text := string(r.string())
	return &text
}

func (r *reader) flag() bool {
	if r.word("true") {
		return true
	}
	if !r.word("false") && !r.null() {
		r.fail("there should be true or false")
	}
	return false
}

func (r *reader) plainFlag() bool {
	if r.peek() == 'n' {
		r.fail("there should be true or false")
	}
	return r.flag()
}

func (r *reader) integer() int64 {
	if r.null() {
		return 0
	}
	r.space()
	start := r.at
	r.number()
	digits := string(r.text[start:r.at])
	if whole, fraction, ok := strings.Cut(digits, "."); ok && strings.Trim(fraction, "0") == "" {
		digits = whole
	}
	number, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		r.fail("there should be a whole number")
	}
	return number
}

func (r *reader) maybeInteger() *int64 {
	if r.null() {
		return nil
	}
	number := r.integer()
	return &number
}

func (r *reader) texts() (list []string) {
	if r.null() {
		return nil
	}
	r.elements(func() { list = append(list, string(r.string())) })
	return list
}

func (r *reader) elements(each func()) {
	r.take('[')
	if r.peek() == ']' {
		r.at++
		return
	}
	for each(); r.peek() == ','; each() {
		r.at++
	}
	r.take(']')
}

func (r *reader) textMap() map[string]string {
	if r.null() {
		return nil
	}
	made := map[string]string{}
	for key, ok := r.first(); ok; key, ok = r.more() {
		made[string(key)] = string(r.string())
	}
	return made
}

// An object of anything; its numbers keep their digits (json.Number).
func (r *reader) anyMap() (made map[string]any) {
	if r.null() {
		return nil
	}
	if r.peek() != '{' {
		r.fail("there should be an object")
	}
	decoder := json.NewDecoder(bytes.NewReader(r.raw()))
	decoder.UseNumber()
	if err := decoder.Decode(&made); err != nil {
		r.fail("%s", err)
	}
	return made
}

// Any value, as it is written.
func (r *reader) raw() json.RawMessage {
	r.space()
	start := r.at
	r.skip(1)
	return bytes.Clone(r.text[start:r.at])
}

// skip passes over any value, and checks it.
func (r *reader) skip(depth int) {
	if depth > maxDepth {
		r.fail("it is nested too deep")
	}
	switch c := r.peek(); {
	case c == '"':
		r.string()
	case c == '{':
		for _, ok := r.first(); ok; _, ok = r.more() {
			r.skip(depth + 1)
		}
	case c == '[':
		r.elements(func() { r.skip(depth + 1) })
	case !r.word("true") && !r.word("false") && !r.null():
		r.number()
	}
}

func (r *reader) number() {
	if r.peek() == '-' {
		r.at++
	}
	if r.at < len(r.text) && r.text[r.at] == '0' {
		r.at++
	} else {
		r.digits()
	}
	if r.at < len(r.text) && r.text[r.at] == '.' {
		r.at++
		r.digits()
	}
	if r.at < len(r.text) && (r.text[r.at] == 'e' || r.text[r.at] == 'E') {
		r.at++
		if r.at < len(r.text) && (r.text[r.at] == '+' || r.text[r.at] == '-') {
			r.at++
		}
		r.digits()
	}
}

func (r *reader) digits() {
	start := r.at
	for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
		r.at++
	}
	if r.at == start {
		r.fail("there should be a value")
	}
}

// The array of post_query: the statement, and how it went.
func readPair(text []byte, in *QueryInput, outcome *Outcome) error {
	_, err := read(text, func(r *reader) bool {
		r.take('[')
		*in = r.queryInput()
		r.take(',')
		*outcome = r.outcome()
		r.take(']')
		return true
	})
	return err
}
