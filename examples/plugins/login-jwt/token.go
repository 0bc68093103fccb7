package main

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"

	"hookline"
)

type claims map[string]any

// Strict: no bits are left over, so that there is one text for each signature.
var coding = base64.RawURLEncoding.Strict()

// verified reads a token (RFC 7515, compact) and checks its signature. The text is why it is not one, for the client.
func verified(token string, conf config) (claims, string) {
	parts := strings.Split(token, ".")
	header, ok := object(parts[0])
	if !ok {
		return nil, "the token is malformed"
	}
	if header["alg"] != "HS256" {
		return nil, "the token's algorithm is not HS256"
	}
	if header["crit"] != nil { // what is said to be critical has to be understood
		return nil, "the token needs what is not known here"
	}
	signature, err := coding.DecodeString(parts[2])
	if err != nil {
		return nil, "the token is malformed"
	}
	wanted, err := hookline.HMACSHA256([]byte(conf.Secret), []byte(parts[0]+"."+parts[1]))
	if err != nil {
		hookline.Fail("the signature cannot be checked; is the permission crypto granted? " + err.Error())
	}
	if subtle.ConstantTimeCompare(signature, wanted) != 1 { // takes the same time wherever they differ
		return nil, "the token's signature is wrong"
	}
	given, ok := object(parts[1])
	if !ok {
		return nil, "the token is malformed"
	}
	return given, ""
}

// object reads base64url of a JSON object.
func object(part string) (made map[string]any, ok bool) {
	text, err := coding.DecodeString(part)
	if err != nil {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if decoder.Decode(&made) != nil || made == nil {
		return nil, false
	}
	_, err = decoder.Token()
	return made, err == io.EOF
}

func (c claims) text(name string) string {
	text, _ := c[name].(string)
	return text
}

func (c claims) maybe(name string) *string {
	if text, ok := c[name].(string); ok {
		return &text
	}
	return nil
}

// texts are those of a list; one text is a list of one.
func (c claims) texts(name string) []string {
	if text, ok := c[name].(string); ok {
		return []string{text}
	}
	list, _ := c[name].([]any)
	var made []string
	for _, each := range list {
		if text, ok := each.(string); ok {
			made = append(made, text)
		}
	}
	return made
}

// time is seconds since 1970, perhaps with a fraction; nil where it is none.
func (c claims) time(name string) *float64 {
	number, ok := c[name].(json.Number)
	if !ok {
		return nil
	}
	seconds, err := number.Float64()
	if err != nil {
		return nil
	}
	return &seconds
}
