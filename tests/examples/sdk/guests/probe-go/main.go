// Command probe-go calls the host function that its input names, with the arguments behind it (all apart by U+001F),
// and answers in a JSON string what the SDK made of it.
package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"hookline"
)

func failed(err error) string {
	var failure *hookline.Failure
	if errors.As(err, &failure) {
		return fmt.Sprintf("failure|%s|%s|%s", failure.Cause, failure.Message, failure.SQLState)
	}
	var code hookline.Code
	if errors.As(err, &code) {
		return fmt.Sprintf("error|%d", int(code))
	}
	return err.Error()
}

func done(err error) string { return or("ok", err) }

func or(text string, err error) string {
	if err != nil {
		return failed(err)
	}
	return text
}

func bytes(found []byte, err error) string {
	if err == nil && found == nil {
		return "none"
	}
	return or("some|"+string(found), err)
}

func yes(found bool, err error) string { return or(strconv.FormatBool(found), err) }

func response(found hookline.Response, err error) string {
	kind := found.Headers["content-type"]
	return or(fmt.Sprintf("%d|%s|%s|%t", found.Status, kind, found.Body, found.FromCache), err)
}

func list(columns []hookline.Column, of func(hookline.Column) string) string {
	var all []string
	for _, column := range columns {
		all = append(all, of(column))
	}
	return strings.Join(all, ",")
}

func name(column hookline.Column) string { return column.Name }

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		hookline.Fail(err.Error())
	}
	return n
}

func execute(a []string) string {
	var params []any
	for _, each := range a[2:] {
		switch value := each[1:]; each[0] {
		case 'n':
			params = append(params, nil)
		case 'b':
			params = append(params, value == "true")
		case 'i':
			params = append(params, number(value))
		case 't':
			params = append(params, value)
		default:
			params = append(params, []byte(value))
		}
	}
	found, err := hookline.QueryExecute(a[0], a[1], params...)
	if err != nil {
		return failed(err)
	}
	rows := ""
	for i, row := range found.Rows {
		cells := make([]string, len(row))
		into := make([]any, len(row))
		for j := range cells {
			into[j] = &cells[j]
		}
		if err := found.Scan(i, into...); err != nil {
			return err.Error()
		}
		rows += strings.Join(cells, ",") + ";"
	}
	types := list(found.Columns, func(column hookline.Column) string { return column.Type })
	return fmt.Sprintf("%d|%s|%s|%s", found.RowCount, list(found.Columns, name), types, rows)
}

func fetch(a []string) string {
	request := hookline.Request{Method: a[0], URL: a[1], Body: []byte(a[4]), TimeoutMs: number(a[5])}
	if a[2] != "" {
		request.Headers = map[string]string{a[2]: a[3]}
	}
	return response(hookline.HTTPFetch(request))
}

func call(function string, a []string) string {
	real := func(text string) float64 { return float64(number(text)) / 4 }
	switch function {
	case "log":
		hookline.Log(hookline.Level(number(a[0])), a[1])
		return "ok"
	case "get_time":
		return strconv.FormatInt(hookline.GetTime(), 10)
	case "random":
		out := make([]byte, number(a[0]))
		return or("some|"+string(out), hookline.Random(out))
	case "get_config":
		return bytes(hookline.GetConfig(a[0]))
	case "metric_inc":
		return done(hookline.MetricInc(a[0], real(a[1])))
	case "metric_gauge":
		return done(hookline.MetricGauge(a[0], real(a[1])))
	case "metric_observe":
		return done(hookline.MetricObserve(a[0], real(a[1])))
	case "sha256_hex":
		hex, err := hookline.SHA256Hex([]byte(a[0]))
		return or("some|"+hex, err)
	case "hmac_sha256":
		return bytes(hookline.HMACSHA256([]byte(a[0]), []byte(a[1])))
	case "query_execute":
		return execute(a)
	case "query_prepare":
		found, err := hookline.QueryPrepare(a[0], a[1])
		return or(strings.Join(found.Parameters, ",")+"|"+list(found.Columns, name), err)
	case "query_get_tables":
		tables, err := hookline.QueryGetTables(a[0])
		return or(strings.Join(tables, ","), err)
	case "query_normalize":
		sql, err := hookline.QueryNormalize(a[0])
		return or(sql, err)
	case "http_fetch":
		return fetch(a)
	case "http_post":
		return response(hookline.HTTPPost(a[0], a[1], []byte(a[2])))
	}
	return stored(function, a)
}

func stored(function string, a []string) string {
	switch function {
	case "kv_get":
		return bytes(hookline.KVGet(a[0]), nil)
	case "kv_set":
		return done(hookline.KVSet(a[0], []byte(a[1])))
	case "kv_delete":
		return done(hookline.KVDelete(a[0]))
	case "kv_list":
		keys, err := hookline.KVList(a[0])
		return or(strings.Join(keys, ","), err)
	case "kv_incr":
		sum, err := hookline.KVIncr(a[0], number(a[1]))
		return or(strconv.FormatInt(sum, 10), err)
	case "kv_compare_and_set":
		var was []byte
		if a[1] != "-" {
			was = []byte(a[1])
		}
		return yes(hookline.KVCompareAndSet(a[0], was, []byte(a[2])))
	case "kv_set_ttl":
		return yes(hookline.KVSetTTL(a[0], number(a[1])))
	case "cache_get":
		return bytes(hookline.CacheGet(a[0], a[1]))
	case "cache_exists":
		return yes(hookline.CacheExists(a[0], a[1]))
	case "cache_set":
		return done(hookline.CacheSet(a[0], a[1], []byte(a[2]), number(a[3])))
	case "cache_delete":
		return yes(hookline.CacheDelete(a[0], a[1]))
	}
	return "there is no such function"
}

//go:wasmexport custom_hook
func hookCustom(at, size uint32) uint64 {
	fields := strings.Split(string(hookline.Input(at, size)), "\x1f")
	return hookline.Answer(call(fields[0], fields[1:]))
}

func main() {}
