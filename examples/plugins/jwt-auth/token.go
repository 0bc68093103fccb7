package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

const maxToken = 16 << 10

// claims are a token's, by their exact names: encoding/json would take AUD for aud.
type claims map[string]json.RawMessage

type token struct {
	algorithm, keyID string
	signed           []byte // what the signature is of
	signature        []byte
	claims           claims
}

// parse takes a token apart, and believes nothing of it. What is wrong with it is told in a sentence.
func parse(text string) (token, string) {
	if len(text) > maxToken {
		return token{}, "the token is too long"
	}
	parts := strings.Split(text, ".")
	header, err := object(parts[0])
	if err != nil {
		return token{}, "the token's header cannot be read"
	}
	if _, critical := header["crit"]; critical {
		return token{}, "the token demands what is not understood here"
	}
	body, err := object(parts[1])
	if err != nil {
		return token{}, "the token's claims cannot be read"
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(signature) == 0 {
		return token{}, "the token is not signed"
	}
	signed := []byte(text[:len(parts[0])+1+len(parts[1])])
	return token{header.text("alg"), header.text("kid"), signed, signature, body}, ""
}

func object(part string) (claims, error) {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, err
	}
	var found claims
	if !utf8.Valid(decoded) {
		return nil, base64.CorruptInputError(0)
	}
	if err := json.Unmarshal(decoded, &found); err != nil {
		return nil, err
	}
	return found, nil
}

// text answers a claim that is text; empty for any other.
func (c claims) text(name string) string {
	var value string
	if json.Unmarshal(c[name], &value) != nil {
		return ""
	}
	return value
}

// texts answers a list of texts, of which one alone may stand by itself; empty for anything else.
func (c claims) texts(name string) []string {
	list := []string{}
	if one := c.text(name); one != "" {
		return []string{one}
	}
	if json.Unmarshal(c[name], &list) != nil {
		return []string{}
	}
	return list
}

// seconds answers a date; found says whether there is one, and valid whether it is a number that can be one.
func (c claims) seconds(name string) (when int64, found, valid bool) {
	raw, found := c[name]
	if !found {
		return 0, false, true
	}
	var value float64
	if bytes.Equal(raw, []byte("null")) || json.Unmarshal(raw, &value) != nil || math.Abs(value) > 1<<53 {
		return 0, true, false
	}
	return int64(value), true, true
}

// all answers every claim as it was.
func (c claims) all() map[string]any {
	every := make(map[string]any, len(c))
	for name, value := range c {
		every[name] = value
	}
	return every
}

// problem is why these claims are not for us now; empty where they are.
func (c claims) problem(conf config, now int64) string {
	if c.text("iss") != conf.Issuer {
		return "the token is of another issuer"
	}
	if !slices.ContainsFunc(c.texts("aud"), func(each string) bool { return slices.Contains(conf.Audiences, each) }) {
		return "the token is for somebody else"
	}
	ends, found, valid := c.seconds("exp")
	if !found || !valid {
		return "the token says no time at which it ends"
	}
	if now >= ends+conf.LeewaySeconds {
		return "the token is no longer valid"
	}
	for _, name := range []string{"nbf", "iat"} {
		begins, _, valid := c.seconds(name)
		if !valid || now+conf.LeewaySeconds < begins {
			return "the token is not yet valid"
		}
	}
	return ""
}
