package main

import "strings"

type kind int

const (
	noToken kind = iota
	wordToken
	stringToken
	numberToken
	symbolToken
)

type token struct {
	kind kind
	text string // as it was written
}

// is tells whether a token is this keyword, given in lower case, or this symbol.
func (t token) is(text string) bool {
	return t.kind == wordToken && strings.EqualFold(t.text, text) || t.kind == symbolToken && t.text == text
}

func (t token) folded() string { return strings.ToLower(t.text) }

// split answers the tokens of each statement.
func split(tokens []token) [][]token {
	var statements [][]token
	start := 0
	for i := 0; i <= len(tokens); i++ {
		if i == len(tokens) || tokens[i].is(";") {
			if i > start {
				statements = append(statements, tokens[start:i])
			}
			start = i + 1
		}
	}
	return statements
}

// tokenize reads SQL as PostgreSQL does, without being strict: whatever is unterminated goes to the end. A
// quoted identifier is a string here, because none of the rules is about names.
func tokenize(query string) []token {
	var tokens []token
	for at := 0; at < len(query); {
		rest := query[at:]
		k, size := noToken, 1
		switch c := rest[0]; {
		case strings.HasPrefix(rest, "--"):
			size = to(rest, "\n")
		case strings.HasPrefix(rest, "/*"):
			size = comment(rest)
		case strings.IndexByte(" \t\r\n\f\v", c) >= 0:
		case c == '\'' || c == '"':
			k, size = stringToken, quoted(rest, c, false)
		case (c == 'e' || c == 'E') && strings.HasPrefix(rest[1:], "'"):
			k, size = stringToken, 1+quoted(rest[1:], '\'', true)
		case letter(c):
			k, size = wordToken, span(rest, func(c byte) bool { return letter(c) || digit(c) || c == '$' })
		case digit(c):
			k, size = numberToken, span(rest, func(c byte) bool { return digit(c) || c == '.' })
		case c == '$':
			k, size = dollar(rest)
		default:
			k = symbolToken
		}
		if k != noToken {
			tokens = append(tokens, token{k, rest[:size]})
		}
		at += size
	}
	return tokens
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80 }

func digit(c byte) bool { return c >= '0' && c <= '9' }

// span answers how many of the first bytes are of a kind.
func span(text string, of func(byte) bool) int {
	size := 0
	for size < len(text) && of(text[size]) {
		size++
	}
	return size
}

// to answers the length up to and with an end, or all of the text where it has none.
func to(text, end string) int {
	if at := strings.Index(text, end); at >= 0 {
		return at + len(end)
	}
	return len(text)
}

func comment(text string) int {
	depth := 0
	for at := 0; at < len(text); at++ {
		if strings.HasPrefix(text[at:], "/*") {
			depth++
			at++
		} else if strings.HasPrefix(text[at:], "*/") {
			depth--
			at++
			if depth == 0 {
				return at + 1
			}
		}
	}
	return len(text)
}

func quoted(text string, quote byte, backslashes bool) int {
	for at := 1; at < len(text); at++ {
		switch {
		case text[at] == '\\' && backslashes:
			at++
		case text[at] == quote && at+1 < len(text) && text[at+1] == quote:
			at++
		case text[at] == quote:
			return at + 1
		}
	}
	return len(text)
}

// dollar reads $tag$…$tag$, or a parameter such as $1.
func dollar(text string) (kind, int) {
	tag := 1 + span(text[1:], func(c byte) bool { return letter(c) || digit(c) })
	if tag == len(text) || text[tag] != '$' || tag > 1 && digit(text[1]) {
		return symbolToken, tag
	}
	return stringToken, tag + 1 + to(text[tag+1:], text[:tag+1])
}
