package hookline

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// object is a JSON object that is being written.
type object []byte

func action(name string) object { return object(`{"action":"` + name + `"`) }

func (o object) key(name string) object { return append(append(append(o, `,"`...), name...), `":`...) }

func (o object) text(name, value string) object { return appendText(o.key(name), value) }

func (o object) maybeText(name, value string) object {
	if value == "" {
		return o
	}
	return o.text(name, value)
}

func (o object) maybeInteger(name string, value *int64) object {
	if value == nil {
		return o
	}
	return strconv.AppendInt(o.key(name), *value, 10)
}

func (o object) bytes(name string, value []byte) object {
	made := append(o.key(name+"_base64"), '"')
	return append(base64.StdEncoding.AppendEncode(made, value), '"')
}

func (o object) any(name string, value any) object {
	text, err := json.Marshal(value)
	if err != nil {
		Fail(err.Error())
	}
	return append(o.key(name), text...)
}

func (o object) end() []byte { return append(o, '}') }

func appendText(to []byte, text string) []byte {
	const hex = "0123456789abcdef"
	if !utf8.ValidString(text) {
		Fail("an answer's text is not UTF-8")
	}
	to = append(to, '"')
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			to = append(to, '\\', c)
		case c == '\n':
			to = append(to, '\\', 'n')
		case c < 0x20:
			to = append(to, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			to = append(to, c)
		}
	}
	return append(to, '"')
}
