package hookline

import "unsafe"

// The host's functions as they are imported. Elsewhere native.go has them.

//go:wasmimport env kv_get
func hostKVGet(key unsafe.Pointer, keyLen uint32, out unsafe.Pointer, outMax uint32) int32

//go:wasmimport env kv_set
func hostKVSet(key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32) int32

//go:wasmimport env kv_delete
func hostKVDelete(key unsafe.Pointer, keyLen uint32) int32

//go:wasmimport env sha256_hex
func hostSHA256Hex(data unsafe.Pointer, dataLen uint32, out unsafe.Pointer) int32

//go:wasmimport hookline log
func hostLog(level int32, line unsafe.Pointer, size uint32) int32

//go:wasmimport hookline get_time
func hostGetTime() int64

//go:wasmimport hookline random
func hostRandom(out unsafe.Pointer, size uint32) int32

//go:wasmimport hookline get_config
func hostGetConfig(path unsafe.Pointer, size uint32) uint64

//go:wasmimport hookline metric_inc
func hostMetricInc(name unsafe.Pointer, size uint32, by float64) int32

//go:wasmimport hookline metric_gauge
func hostMetricGauge(name unsafe.Pointer, size uint32, value float64) int32

//go:wasmimport hookline metric_observe
func hostMetricObserve(name unsafe.Pointer, size uint32, value float64) int32

//go:wasmimport hookline hmac_sha256
func hostHMACSHA256(key unsafe.Pointer, keyLen uint32, data unsafe.Pointer, dataLen uint32, out unsafe.Pointer) int32

//go:wasmimport hookline kv_list
func hostKVList(prefix unsafe.Pointer, size uint32) uint64

//go:wasmimport hookline kv_incr
func hostKVIncr(key unsafe.Pointer, keyLen uint32, by int64) int64

//go:wasmimport hookline kv_compare_and_set
func hostKVCompareAndSet(
	key unsafe.Pointer, keyLen uint32, was unsafe.Pointer, wasLen int32, value unsafe.Pointer, valueLen uint32,
) int32

//go:wasmimport hookline kv_set_ttl
func hostKVSetTTL(key unsafe.Pointer, keyLen uint32, ttlMs int64) int32

//go:wasmimport hookline query_execute
func hostQueryExecute(
	source unsafe.Pointer, sourceLen uint32, sql unsafe.Pointer, sqlLen uint32, params unsafe.Pointer, paramsLen uint32,
) uint64

//go:wasmimport hookline query_prepare
func hostQueryPrepare(source unsafe.Pointer, sourceLen uint32, sql unsafe.Pointer, sqlLen uint32) uint64

//go:wasmimport hookline query_get_tables
func hostQueryGetTables(sql unsafe.Pointer, size uint32) uint64

//go:wasmimport hookline query_normalize
func hostQueryNormalize(sql unsafe.Pointer, size uint32) uint64

//go:wasmimport hookline cache_get
func hostCacheGet(cache unsafe.Pointer, cacheLen uint32, key unsafe.Pointer, keyLen uint32) uint64

//go:wasmimport hookline cache_exists
func hostCacheExists(cache unsafe.Pointer, cacheLen uint32, key unsafe.Pointer, keyLen uint32) int32

//go:wasmimport hookline cache_set
func hostCacheSet(
	cache unsafe.Pointer, cacheLen uint32, key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32,
	ttlMs int64,
) int32

//go:wasmimport hookline cache_delete
func hostCacheDelete(cache unsafe.Pointer, cacheLen uint32, key unsafe.Pointer, keyLen uint32) int32

//go:wasmimport hookline http_fetch
func hostHTTPFetch(request unsafe.Pointer, size uint32) uint64

//go:wasmimport hookline http_post
func hostHTTPPost(
	url unsafe.Pointer, urlLen uint32, contentType unsafe.Pointer, typeLen uint32, body unsafe.Pointer, bodyLen uint32,
) uint64
