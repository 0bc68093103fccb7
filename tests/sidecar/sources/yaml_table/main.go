// What Kubernetes makes of YAML: reads a table of documents from standard input, and writes it with what each becomes.
//
//	go run . <table.json >new.json && mv new.json table.json
//
// A document takes the way of `kubectl create --filename`: kubectl's decoder (apimachinery's util/yaml, which is
// sigs.k8s.io/yaml, which is go.yaml.in/yaml/v2), then JSON numbers as kubectl and the API server each read and write
// them. So the answer is the JSON that the API server hands out, byte for byte.
package main

import (
	"bytes"
	"encoding/base64"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// row is one case. Of scalar, document and base64 one is given; of becomes and refused one is answered here.
type row struct {
	// What is read is "v: SCALAR", and what it becomes is the JSON of v.
	Scalar *string `json:"scalar,omitempty"`
	// A whole file.
	Document *string `json:"document,omitempty"`
	// A whole file that is not UTF-8.
	Base64 *string `json:"base64,omitempty"`
	// The JSON of each document in the file that is not null.
	Becomes []string `json:"becomes,omitzero"`
	// Why kubectl does not take the file.
	Refused string `json:"refused,omitempty"`
	// Why a manifest folder refuses what kubectl takes: written by hand, and checked by the test.
	Folder string `json:"folder,omitempty"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(from io.Reader, to io.Writer) error {
	var rows []row
	if err := stdjson.NewDecoder(from).Decode(&rows); err != nil {
		return err
	}
	separator := "[\n"
	for _, each := range rows {
		file, err := each.file()
		if err != nil {
			return err
		}
		each.Becomes, each.Refused = nil, ""
		if each.Becomes, err = read(file); err == nil && each.Scalar != nil {
			each.Becomes, err = value(each.Becomes)
		}
		if err != nil {
			each.Becomes, each.Refused = nil, err.Error()
		}
		line := new(bytes.Buffer)
		encoder := stdjson.NewEncoder(line)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(each); err != nil {
			return err
		}
		fmt.Fprintf(to, "%s%s", separator, bytes.TrimSpace(line.Bytes()))
		separator = ",\n"
	}
	_, err := fmt.Fprintln(to, "\n]")
	return err
}

func (r row) file() ([]byte, error) {
	switch {
	case r.Scalar != nil:
		return []byte("v: " + *r.Scalar + "\n"), nil
	case r.Document != nil:
		return []byte(*r.Document), nil
	case r.Base64 != nil:
		return base64.StdEncoding.DecodeString(*r.Base64)
	}
	return nil, errors.New("a row without scalar, document or base64")
}

// value is the JSON of v.
func value(objects []string) ([]string, error) {
	if len(objects) != 1 {
		return nil, fmt.Errorf("%d documents instead of one", len(objects))
	}
	var only struct{ V stdjson.RawMessage }
	err := stdjson.Unmarshal([]byte(objects[0]), &only)
	return []string{string(only.V)}, err
}

// read is the loop of kubectl's StreamVisitor: 4096 is its, and so is passing over what is null.
func read(file []byte) ([]string, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(file), 4096)
	objects := []string{}
	for {
		raw := stdjson.RawMessage{}
		if err := decoder.Decode(&raw); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		raw = bytes.TrimSpace(raw)
		if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
			continue
		}
		for range []string{"kubectl", "the API server"} {
			var object any
			err := json.Unmarshal(raw, &object)
			if err == nil {
				raw, err = plain(object)
			}
			if err != nil {
				return nil, err
			}
		}
		objects = append(objects, string(raw))
	}
}

// plain is encoding/json, without its escapes for HTML: the table is for people too.
func plain(object any) ([]byte, error) {
	made := new(bytes.Buffer)
	encoder := stdjson.NewEncoder(made)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(object)
	return bytes.TrimSpace(made.Bytes()), err
}
