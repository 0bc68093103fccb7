package hookline

import (
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"unsafe"
)

// The host functions, as docs/author/guest-abi.md has them. A plugin imports those alone that it calls. All of them
// look blocking; while one waits, others are answered.

// Code is what a host function says where it does not do what it was asked: an error.
type Code int32

const (
	ErrMemory      Code = -1 // a pointer or length outside memory; of KVSet, KVDelete and SHA256Hex anything
	ErrSize        Code = -2 // too large
	ErrDenied      Code = -3 // the resource does not grant the permission
	ErrArgument    Code = -4 // a malformed argument, or a cache that the resource does not name
	ErrCap         Code = -5 // a cap is reached
	ErrUnavailable Code = -6 // not now
)

func (c Code) Error() string {
	switch c {
	case ErrMemory:
		return "an argument lies outside memory"
	case ErrSize:
		return "it is too large"
	case ErrDenied:
		return "the resource does not grant the permission"
	case ErrArgument:
		return "an argument is malformed"
	case ErrCap:
		return "a cap is reached"
	case ErrUnavailable:
		return "the host cannot do it now"
	}
	return "the host answered " + strconv.Itoa(int(c))
}

// Failure is why a statement or a request came to nothing: an error.
type Failure struct {
	Cause    string `json:"cause"`    // timeout, denied, limit or failed
	Message  string `json:"message"`  // one sentence
	SQLState string `json:"sqlstate"` // where PostgreSQL said it
}

func (f *Failure) Error() string { return f.Cause + ": " + f.Message }

// A text or bytes as the host takes them. The caller keeps them alive.
func text(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

func octets(b []byte) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))
}

func done(answer int32) error {
	if answer < 0 {
		return Code(answer)
	}
	return nil
}

func yes(answer int32) (bool, error) { return answer == 1, done(answer) }

// The bytes that the host put where our alloc said; they are ours now. Nil where there is nothing.
func unpack(packed uint64) ([]byte, error) {
	at, size := uint32(packed>>32), uint32(packed)
	if at == 0 {
		if size == 0 {
			return nil, nil
		}
		return nil, Code(-int32(size))
	}
	block := held[at]
	delete(held, at)
	return block[:size], nil
}

func reply(packed uint64, into any) error {
	answer, err := unpack(packed)
	if err != nil {
		return &Failure{Cause: "failed", Message: err.Error()}
	}
	var outcome struct {
		Error *Failure `json:"error"`
	}
	// Lists have no member `error`.
	if len(answer) > 0 && answer[0] == '{' {
		if err := json.Unmarshal(answer, &outcome); err != nil {
			return &Failure{Cause: "failed", Message: "the host answered no JSON: " + err.Error()}
		}
	}
	if outcome.Error != nil {
		return outcome.Error
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return &Failure{Cause: "failed", Message: "the host answered something else: " + err.Error()}
	}
	return nil
}

// ---- Log, time, chance, settings. ----

type Level int32

const (
	Trace Level = iota
	Debug
	Info
	Warn
	Error
)

func Log(level Level, line string) {
	at, size := text(line)
	hostLog(int32(level), at, size)
	runtime.KeepAlive(line)
}

// GetTime answers milliseconds since 1970, UTC.
func GetTime() int64 { return hostGetTime() }

// Random fills up to 4096 bytes from the system's generator.
func Random(out []byte) error {
	at, size := octets(out)
	return done(hostRandom(at, size))
}

// GetConfig answers the JSON of the setting at a dotted path; nil where there is none.
func GetConfig(path string) ([]byte, error) {
	at, size := text(path)
	defer runtime.KeepAlive(path)
	return unpack(hostGetConfig(at, size))
}

// Config reads the whole config. Without the permission the call fails, because running on defaults instead would go
// unnoticed.
func Config(into any) {
	config, err := GetConfig("")
	if err != nil {
		Fail("the config cannot be read; is the permission config.read granted?")
	}
	if config != nil {
		if err := json.Unmarshal(config, into); err != nil {
			Fail("the config cannot be read: " + err.Error())
		}
	}
}

// ---- Metrics. ----

func MetricInc(name string, by float64) error {
	at, size := text(name)
	defer runtime.KeepAlive(name)
	return done(hostMetricInc(at, size, by))
}

func MetricGauge(name string, value float64) error {
	at, size := text(name)
	defer runtime.KeepAlive(name)
	return done(hostMetricGauge(at, size, value))
}

func MetricObserve(name string, value float64) error {
	at, size := text(name)
	defer runtime.KeepAlive(name)
	return done(hostMetricObserve(at, size, value))
}

// Count adds one to a counter. Without the permission metrics nothing is counted, and nothing breaks.
func Count(name string) { _ = MetricInc(name, 1) }

// ---- Hashes. ----

// SHA256Hex answers 64 lower-case hexadecimal digits.
func SHA256Hex(data []byte) (string, error) {
	var out [64]byte
	at, size := octets(data)
	defer runtime.KeepAlive(data)
	err := done(hostSHA256Hex(at, size, unsafe.Pointer(&out)))
	if err != nil {
		return "", err
	}
	return string(out[:]), nil
}

// HMACSHA256 answers 32 bytes.
func HMACSHA256(key, data []byte) ([]byte, error) {
	var out [32]byte
	keyAt, keyLen := octets(key)
	at, size := octets(data)
	defer runtime.KeepAlive(key)
	defer runtime.KeepAlive(data)
	err := done(hostHMACSHA256(keyAt, keyLen, at, size, unsafe.Pointer(&out)))
	if err != nil {
		return nil, err
	}
	return out[:], nil
}

// ---- Keys: the pod's own, or the cluster's, as the resource says. Each call is atomic. ----

// KVMax is how many bytes a key, or a value, may have.
const KVMax = 65536

// KVGet answers the value of a key; nil where there is none, and also without the permission: who must tell them
// apart asks KVList.
func KVGet(key string) []byte {
	at, size := text(key)
	defer runtime.KeepAlive(key)
	for _, room := range []int{4096, KVMax} {
		out := make([]byte, room)
		length := hostKVGet(at, size, unsafe.Pointer(unsafe.SliceData(out)), uint32(room))
		if length >= 0 {
			return out[:length]
		}
		if length != int32(ErrSize) {
			return nil
		}
	}
	return nil
}

func KVSet(key string, value []byte) error {
	at, size := text(key)
	valueAt, valueLen := octets(value)
	defer runtime.KeepAlive(key)
	defer runtime.KeepAlive(value)
	return done(hostKVSet(at, size, valueAt, valueLen))
}

func KVDelete(key string) error {
	at, size := text(key)
	defer runtime.KeepAlive(key)
	return done(hostKVDelete(at, size))
}

// KVList answers the keys with that prefix, in order.
func KVList(prefix string) ([]string, error) {
	at, size := text(prefix)
	defer runtime.KeepAlive(prefix)
	list, err := unpack(hostKVList(at, size))
	if err != nil {
		return nil, err
	}
	var keys []string
	err = json.Unmarshal(list, &keys)
	return keys, err
}

// KVIncr adds to a decimal number, and answers the sum. What went wrong is not said: a permission, a cap, no number.
func KVIncr(key string, by int64) (int64, error) {
	at, size := text(key)
	defer runtime.KeepAlive(key)
	sum := hostKVIncr(at, size, by)
	if sum == math.MinInt64 {
		return 0, ErrUnavailable
	}
	return sum, nil
}

// KVCompareAndSet says whether the value was `was` (nil: there was no such key) and is `value` now.
func KVCompareAndSet(key string, was, value []byte) (bool, error) {
	at, size := text(key)
	wasAt, wasLen := octets(was)
	valueAt, valueLen := octets(value)
	defer runtime.KeepAlive(key)
	defer runtime.KeepAlive(was)
	defer runtime.KeepAlive(value)
	length := int32(wasLen)
	if was == nil {
		length = -1
	}
	return yes(hostKVCompareAndSet(at, size, wasAt, length, valueAt, valueLen))
}

// KVSetTTL says whether there is such a key. 0 or less takes the limit off.
func KVSetTTL(key string, ttlMs int64) (bool, error) {
	at, size := text(key)
	defer runtime.KeepAlive(key)
	return yes(hostKVSetTTL(at, size, ttlMs))
}

// ---- Caches. An empty name is the first of the resource's; a ttl of 0 is the cache's own. ----

// CacheGet answers nil where there is nothing.
func CacheGet(cache, key string) ([]byte, error) {
	cacheAt, cacheLen := text(cache)
	at, size := text(key)
	defer runtime.KeepAlive(cache)
	defer runtime.KeepAlive(key)
	return unpack(hostCacheGet(cacheAt, cacheLen, at, size))
}

func CacheExists(cache, key string) (bool, error) {
	cacheAt, cacheLen := text(cache)
	at, size := text(key)
	defer runtime.KeepAlive(cache)
	defer runtime.KeepAlive(key)
	return yes(hostCacheExists(cacheAt, cacheLen, at, size))
}

func CacheSet(cache, key string, value []byte, ttlMs int64) error {
	cacheAt, cacheLen := text(cache)
	at, size := text(key)
	valueAt, valueLen := octets(value)
	defer runtime.KeepAlive(cache)
	defer runtime.KeepAlive(key)
	defer runtime.KeepAlive(value)
	return done(hostCacheSet(cacheAt, cacheLen, at, size, valueAt, valueLen, ttlMs))
}

// CacheDelete says whether it was there.
func CacheDelete(cache, key string) (bool, error) {
	cacheAt, cacheLen := text(cache)
	at, size := text(key)
	defer runtime.KeepAlive(cache)
	defer runtime.KeepAlive(key)
	return yes(hostCacheDelete(cacheAt, cacheLen, at, size))
}

// ---- Databases. ----

// Column is one of a result.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"` // as PostgreSQL names it
}

// Rows is what a statement came to.
type Rows struct {
	Columns  []Column            `json:"columns"`
	Rows     [][]json.RawMessage `json:"rows"`
	RowCount int64               `json:"rowCount"` // those that it answered or changed
}

// Scan reads one row into variables: text into *string or **string where it may be null, bytea into *[]byte.
func (r Rows) Scan(row int, into ...any) error {
	if row >= len(r.Rows) || len(into) > len(r.Rows[row]) {
		return fmt.Errorf("there is no row %d of %d columns", row, len(into))
	}
	for column, variable := range into {
		if err := json.Unmarshal(r.Rows[row][column], variable); err != nil {
			return fmt.Errorf("column %d: %w", column+1, err)
		}
	}
	return nil
}

// QueryExecute runs one statement, with parameters for its $1 and so on: whatever encoding/json writes, bytes as
// base64, infinities and NaN as text.
func QueryExecute(source, sql string, params ...any) (Rows, error) {
	var rows Rows
	array, err := parameters(params)
	if err != nil {
		return rows, err
	}
	sourceAt, sourceLen := text(source)
	at, size := text(sql)
	paramsAt, paramsLen := octets(array)
	defer runtime.KeepAlive(source)
	defer runtime.KeepAlive(sql)
	defer runtime.KeepAlive(array)
	err = reply(hostQueryExecute(sourceAt, sourceLen, at, size, paramsAt, paramsLen), &rows)
	return rows, err
}

func parameters(params []any) ([]byte, error) {
	if len(params) == 0 {
		return nil, nil
	}
	list := slices.Clone(params)
	for i, param := range list {
		switch number, _ := param.(float64); {
		case math.IsNaN(number):
			list[i] = "NaN"
		case math.IsInf(number, 1):
			list[i] = "Infinity"
		case math.IsInf(number, -1):
			list[i] = "-Infinity"
		}
	}
	array, err := json.Marshal(list)
	if err != nil {
		return nil, &Failure{Cause: "failed", Message: "a parameter is no JSON: " + err.Error()}
	}
	return array, nil
}

// Prepared is what a statement takes and answers.
type Prepared struct {
	Parameters []string `json:"parameters"` // types, as PostgreSQL names them
	Columns    []Column `json:"columns"`
}

// QueryPrepare checks and describes a statement, without running it.
func QueryPrepare(source, sql string) (Prepared, error) {
	var prepared Prepared
	sourceAt, sourceLen := text(source)
	at, size := text(sql)
	defer runtime.KeepAlive(source)
	defer runtime.KeepAlive(sql)
	err := reply(hostQueryPrepare(sourceAt, sourceLen, at, size), &prepared)
	return prepared, err
}

// QueryGetTables answers the tables that a statement names, as it writes them.
func QueryGetTables(sql string) ([]string, error) {
	var tables []string
	at, size := text(sql)
	defer runtime.KeepAlive(sql)
	err := reply(hostQueryGetTables(at, size), &tables)
	return tables, err
}

// QueryNormalize answers the statement with its constants replaced by parameters.
func QueryNormalize(sql string) (string, error) {
	var normalized struct {
		SQL string `json:"sql"`
	}
	at, size := text(sql)
	defer runtime.KeepAlive(sql)
	err := reply(hostQueryNormalize(at, size), &normalized)
	return normalized.SQL, err
}

// ---- HTTP. ----

// Request is what HTTPFetch asks. Without Timeout, the plugin's limits.wait alone counts.
type Request struct {
	Method    string            `json:"method"`
	URL       string            `json:"url"`
	Headers   map[string]string `json:"headers,omitempty"`
	Body      []byte            `json:"bodyBase64,omitempty"`
	TimeoutMs int64             `json:"timeoutMs,omitempty"`
}

// Response is what a server answered.
type Response struct {
	Status    int
	Headers   map[string]string // with names in lower case
	Body      []byte
	FromCache bool
}

func response(packed uint64) (Response, error) {
	var answer struct {
		Status     int               `json:"status"`
		Headers    map[string]string `json:"headers"`
		Body       string            `json:"body"`
		BodyBase64 []byte            `json:"bodyBase64"`
		FromCache  bool              `json:"fromCache"`
	}
	if err := reply(packed, &answer); err != nil {
		return Response{}, err
	}
	body := answer.BodyBase64
	if body == nil {
		body = []byte(answer.Body)
	}
	return Response{answer.Status, answer.Headers, body, answer.FromCache}, nil
}

func HTTPFetch(request Request) (Response, error) {
	written, err := json.Marshal(request)
	if err != nil {
		return Response{}, &Failure{Cause: "failed", Message: err.Error()}
	}
	at, size := octets(written)
	defer runtime.KeepAlive(written)
	return response(hostHTTPFetch(at, size))
}

func HTTPPost(url, contentType string, body []byte) (Response, error) {
	urlAt, urlLen := text(url)
	typeAt, typeLen := text(contentType)
	at, size := octets(body)
	defer runtime.KeepAlive(url)
	defer runtime.KeepAlive(contentType)
	defer runtime.KeepAlive(body)
	return response(hostHTTPPost(urlAt, urlLen, typeAt, typeLen, at, size))
}
