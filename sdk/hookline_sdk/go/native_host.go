//go:build !wasip1

package hookline

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unsafe"
)

// The host functions, as imports_wasip1.go has them, of the host in memory.

const kvKeys = 1024 // of a plugin

func textAt(at unsafe.Pointer, size uint32) string { return string(unsafe.Slice((*byte)(at), size)) }

func bytesAt(at unsafe.Pointer, size uint32) []byte { return unsafe.Slice((*byte)(at), size) }

func hostKVGet(key unsafe.Pointer, keyLen uint32, out unsafe.Pointer, outMax uint32) int32 {
	value, found := here().Keys[textAt(key, keyLen)]
	switch {
	case !found || here().denies("kv.read"):
		return -1
	case len(value) > int(outMax):
		return int32(ErrSize)
	}
	return int32(copy(bytesAt(out, outMax), value))
}

func (h *Host) put(key string, value []byte) Code {
	_, known := h.Keys[key]
	switch {
	case h.denies("kv.write"):
		return ErrDenied
	case len(key) > KVMax || len(value) > KVMax:
		return ErrSize
	case !known && len(h.Keys) >= kvKeys:
		return ErrCap
	}
	h.Keys[key] = slices.Clone(value)
	return 0
}

func hostKVSet(key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32) int32 {
	if here().put(textAt(key, keyLen), bytesAt(value, valueLen)) != 0 {
		return -1
	}
	return 0
}

func hostKVDelete(key unsafe.Pointer, keyLen uint32) int32 {
	if here().denies("kv.write") {
		return -1
	}
	delete(here().Keys, textAt(key, keyLen))
	return 0
}

func hostKVList(prefix unsafe.Pointer, size uint32) uint64 {
	if here().denies("kv.read") {
		return refused(ErrDenied)
	}
	keys := here().keys(textAt(prefix, size))
	if keys == nil {
		keys = []string{}
	}
	return given(keys)
}

func hostKVIncr(key unsafe.Pointer, keyLen uint32, by int64) int64 {
	name := textAt(key, keyLen)
	number, err := strconv.ParseInt(strings.TrimSpace(string(here().Keys[name])), 10, 64)
	if _, known := here().Keys[name]; known && err != nil {
		return math.MinInt64
	}
	if here().put(name, strconv.AppendInt(nil, number+by, 10)) != 0 {
		return math.MinInt64
	}
	return number + by
}

func hostKVCompareAndSet(
	key unsafe.Pointer, keyLen uint32, was unsafe.Pointer, wasLen int32, value unsafe.Pointer, valueLen uint32,
) int32 {
	found, known := here().Keys[textAt(key, keyLen)]
	if here().denies("kv.write") {
		return int32(ErrDenied)
	}
	if known != (wasLen >= 0) || known && string(found) != textAt(was, uint32(wasLen)) {
		return 0
	}
	if code := here().put(textAt(key, keyLen), bytesAt(value, valueLen)); code != 0 {
		return int32(code)
	}
	return 1
}

// Nothing ends here by itself.
func hostKVSetTTL(key unsafe.Pointer, keyLen uint32, ttlMs int64) int32 {
	if here().denies("kv.write") {
		return int32(ErrDenied)
	}
	_, found := here().Keys[textAt(key, keyLen)]
	return one(found)
}

func one(yes bool) int32 {
	if yes {
		return 1
	}
	return 0
}

func refused(code Code) uint64 { return uint64(-code) }

func hostSHA256Hex(data unsafe.Pointer, dataLen uint32, out unsafe.Pointer) int32 {
	if here().denies("crypto") {
		return -1
	}
	sum := sha256.Sum256(bytesAt(data, dataLen))
	return int32(hex.Encode(bytesAt(out, 64), sum[:]))
}

func hostHMACSHA256(key unsafe.Pointer, keyLen uint32, data unsafe.Pointer, dataLen uint32, out unsafe.Pointer) int32 {
	if here().denies("crypto") {
		return int32(ErrDenied)
	}
	mac := hmac.New(sha256.New, bytesAt(key, keyLen))
	mac.Write(bytesAt(data, dataLen))
	copy(bytesAt(out, 32), mac.Sum(nil))
	return 0
}

func hostLog(level int32, line unsafe.Pointer, size uint32) int32 {
	here().Log = append(here().Log, Line{Level: Level(level), Text: textAt(line, size)})
	return 0
}

func hostGetTime() int64 { return here().Now }

func hostRandom(out unsafe.Pointer, size uint32) int32 {
	if size > 4096 {
		return int32(ErrSize)
	}
	rand.Read(bytesAt(out, size))
	return 0
}

func hostGetConfig(path unsafe.Pointer, size uint32) uint64 {
	if here().denies("config.read") {
		return refused(ErrDenied)
	}
	return written(here().setting(textAt(path, size)))
}

func metric(name unsafe.Pointer, size uint32, counts bool, value float64) int32 {
	if here().denies("metrics") {
		return int32(ErrDenied)
	}
	key := textAt(name, size)
	if counts {
		value += here().Metrics[key]
	}
	here().Metrics[key] = value
	return 0
}

func hostMetricInc(name unsafe.Pointer, size uint32, by float64) int32 {
	return metric(name, size, true, by)
}

func hostMetricGauge(name unsafe.Pointer, size uint32, value float64) int32 {
	return metric(name, size, false, value)
}

func hostMetricObserve(name unsafe.Pointer, size uint32, value float64) int32 {
	return metric(name, size, true, value)
}

func cacheKey(cache unsafe.Pointer, cacheLen uint32, key unsafe.Pointer, keyLen uint32) string {
	return textAt(cache, cacheLen) + "/" + textAt(key, keyLen)
}

func hostCacheGet(cache unsafe.Pointer, cacheLen uint32, key unsafe.Pointer, keyLen uint32) uint64 {
	if here().denies("cache.read") {
		return refused(ErrDenied)
	}
	value, found := here().Caches[cacheKey(cache, cacheLen, key, keyLen)]
	if !found {
		return 0
	}
	return written(append([]byte{}, value...))
}

func hostCacheExists(cache unsafe.Pointer, cacheLen uint32, key unsafe.Pointer, keyLen uint32) int32 {
	if here().denies("cache.read") {
		return int32(ErrDenied)
	}
	_, found := here().Caches[cacheKey(cache, cacheLen, key, keyLen)]
	return one(found)
}

func hostCacheSet(
	cache unsafe.Pointer, cacheLen uint32, key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32,
	ttlMs int64,
) int32 {
	switch {
	case here().denies("cache.write"):
		return int32(ErrDenied)
	case ttlMs < 0:
		return int32(ErrArgument)
	}
	here().Caches[cacheKey(cache, cacheLen, key, keyLen)] = slices.Clone(bytesAt(value, valueLen))
	return 0
}

func hostCacheDelete(cache unsafe.Pointer, cacheLen uint32, key unsafe.Pointer, keyLen uint32) int32 {
	if here().denies("cache.write") {
		return int32(ErrDenied)
	}
	name := cacheKey(cache, cacheLen, key, keyLen)
	_, found := here().Caches[name]
	delete(here().Caches, name)
	return one(found)
}

func hostQueryExecute(
	source unsafe.Pointer, sourceLen uint32, sql unsafe.Pointer, sqlLen uint32, params unsafe.Pointer, paramsLen uint32,
) uint64 {
	statement := Statement{Function: "query_execute", Source: textAt(source, sourceLen), SQL: textAt(sql, sqlLen)}
	if paramsLen > 0 && json.Unmarshal(bytesAt(params, paramsLen), &statement.Params) != nil {
		return refused(ErrArgument)
	}
	return here().queried(statement)
}

func hostQueryPrepare(source unsafe.Pointer, sourceLen uint32, sql unsafe.Pointer, sqlLen uint32) uint64 {
	return here().queried(Statement{Function: "query_prepare", Source: textAt(source, sourceLen), SQL: textAt(sql, sqlLen)})
}

func hostQueryGetTables(sql unsafe.Pointer, size uint32) uint64 {
	return here().queried(Statement{Function: "query_get_tables", SQL: textAt(sql, size)})
}

func hostQueryNormalize(sql unsafe.Pointer, size uint32) uint64 {
	return here().queried(Statement{Function: "query_normalize", SQL: textAt(sql, size)})
}

func fetched(request Request) uint64 {
	if here().denies("http.fetch") {
		return given(&Failure{Cause: "denied", Message: "the resource does not grant the permission http.fetch"})
	}
	if here().Fetch == nil {
		return given(&Failure{Cause: "failed", Message: "the test has no Host.Fetch"})
	}
	return given(here().Fetch(request))
}

func hostHTTPFetch(request unsafe.Pointer, size uint32) uint64 {
	var asked Request
	if err := json.Unmarshal(bytesAt(request, size), &asked); err != nil {
		return given(&Failure{Cause: "failed", Message: err.Error()})
	}
	return fetched(asked)
}

func hostHTTPPost(
	url unsafe.Pointer, urlLen uint32, contentType unsafe.Pointer, typeLen uint32, body unsafe.Pointer, bodyLen uint32,
) uint64 {
	headers := map[string]string{"content-type": textAt(contentType, typeLen)}
	return fetched(Request{Method: "POST", URL: textAt(url, urlLen), Headers: headers, Body: slices.Clone(bytesAt(body, bodyLen))})
}
