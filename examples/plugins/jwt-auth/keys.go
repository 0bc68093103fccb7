package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"slices"
	"strconv"

	"hookline"
)

const (
	maxKeys    = 64
	minRSABits = 2048
	maxRSABits = 8192
)

// key is one of a set, RFC 7517 and 8037.
type key struct {
	Type       string   `json:"kty"`
	ID         string   `json:"kid"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	Algorithm  string   `json:"alg"`
	Curve      string   `json:"crv"`
	N          string   `json:"n"`
	E          string   `json:"e"`
	X          string   `json:"x"`
	Y          string   `json:"y"`
}

// kept is a set of keys with its age, as it stands in the cache.
type kept struct {
	Keys    []key `json:"keys"`
	Fetched int64 `json:"fetched"` // seconds since 1970; 0: never
	Tried   int64 `json:"tried"`   // when it was last tried, with or without success
}

// Of the instance, which lives from call to call: it saves a look into the cache, and stands in for a cache that is
// away. By address, since settings change.
var known = map[string]kept{}

// verify finds the key of a token and checks its signature; why not is told in a sentence.
func verify(given token, conf config, now int64) string {
	set := keysOf(conf, now)
	found, ok := set.find(given)
	if !ok && now >= set.Tried+conf.RefetchSeconds {
		set = fetch(conf, set, now)
		found, ok = set.find(given)
	}
	if set.Fetched == 0 || now > set.Fetched+conf.KeysSeconds+conf.StaleSeconds {
		hookline.Count("without_keys_total")
		return "the issuer's keys cannot be fetched"
	}
	if !ok {
		return "the token's key is not one of the issuer's"
	}
	if !found.verifies(given) {
		return "the token's signature is wrong"
	}
	return ""
}

// keysOf answers the newest keys that are known, fetched where they are old and may be fetched.
func keysOf(conf config, now int64) kept {
	set := known[conf.JWKSURL]
	if now < set.Fetched+conf.KeysSeconds {
		return set
	}
	set = newest(set, cached(conf))
	if now >= set.Fetched+conf.KeysSeconds && now >= set.Tried+conf.RefetchSeconds {
		set = fetch(conf, set, now)
	}
	known[conf.JWKSURL] = set
	return set
}

// newest of two: the keys of the one that was fetched later.
func newest(one, other kept) kept {
	if other.Fetched > one.Fetched {
		one.Keys, one.Fetched = other.Keys, other.Fetched
	}
	one.Tried = max(one.Tried, other.Tried)
	return one
}

func cached(conf config) kept {
	var set kept
	text, err := hookline.CacheGet("", "jwks/"+conf.JWKSURL)
	if err == hookline.ErrDenied {
		hookline.Fail("the cache cannot be read; is the permission cache.read granted?")
	}
	if text != nil && json.Unmarshal(text, &set) != nil {
		return kept{}
	}
	return set
}

// fetch asks the issuer, unless somebody else has just done so. What comes of it is kept, failures too: nobody shall
// make us ask more often by naming keys that there are not.
func fetch(conf config, set kept, now int64) kept {
	other := cached(conf)
	if other.Fetched > set.Fetched || other.Tried > set.Tried {
		set = newest(set, other)
		if now < set.Tried+conf.RefetchSeconds {
			known[conf.JWKSURL] = set
			return set
		}
	}
	set.Tried = now
	keys, why := ask(conf)
	if why == "" {
		set.Keys, set.Fetched = keys, now
		hookline.Count("fetched_total")
	} else {
		hookline.Count("fetch_failed_total")
		hookline.Log(hookline.Warn, "the issuer's keys cannot be fetched: "+why)
	}
	if text, err := json.Marshal(set); err == nil {
		err = hookline.CacheSet("", "jwks/"+conf.JWKSURL, text, 1000*(conf.KeysSeconds+conf.StaleSeconds))
		if err == hookline.ErrDenied {
			hookline.Fail("the cache cannot be written; is the permission cache.write granted?")
		}
	}
	known[conf.JWKSURL] = set
	return set
}

func ask(conf config) ([]key, string) {
	response, err := hookline.HTTPFetch(hookline.Request{
		Method: "GET", URL: conf.JWKSURL, TimeoutMs: conf.FetchMs,
		// The keys may be newer than what was kept of the last answer.
		Headers: map[string]string{"accept": "application/json", "cache-control": "no-cache"},
	})
	if err != nil {
		return nil, err.Error()
	}
	if response.Status != 200 {
		return nil, "the answer is " + strconv.Itoa(response.Status)
	}
	var set struct {
		Keys []key `json:"keys"`
	}
	if err := json.Unmarshal(response.Body, &set); err != nil {
		return nil, "the answer is no set of keys: " + err.Error()
	}
	if len(set.Keys) == 0 || len(set.Keys) > maxKeys {
		return nil, "the answer has " + strconv.Itoa(len(set.Keys)) + " keys"
	}
	return set.Keys, ""
}

// find answers the one key that the token can be signed with: that of its kid, or the only one of its kind where it
// names none.
func (s kept) find(given token) (key, bool) {
	var fitting []key
	for _, each := range s.Keys {
		if each.fits(given.algorithm) && (given.keyID == "" || each.ID == given.keyID) {
			fitting = append(fitting, each)
		}
	}
	if len(fitting) != 1 {
		return key{}, false
	}
	return fitting[0], true
}

// fits says whether a key is for signatures of an algorithm, which is what the token says of itself.
func (k key) fits(algorithm string) bool {
	if k.Algorithm != "" && k.Algorithm != algorithm || k.Use != "" && k.Use != "sig" {
		return false
	}
	if k.Operations != nil && !slices.Contains(k.Operations, "verify") {
		return false
	}
	switch algorithm {
	case "RS256":
		return k.Type == "RSA"
	case "ES256":
		return k.Type == "EC" && k.Curve == "P-256"
	case "EdDSA":
		return k.Type == "OKP" && k.Curve == "Ed25519"
	}
	return false
}

func number(text string) *big.Int {
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return new(big.Int)
	}
	return new(big.Int).SetBytes(decoded)
}

func (k key) verifies(given token) bool {
	digest := sha256.Sum256(given.signed)
	switch k.Type {
	case "RSA":
		n, e := number(k.N), number(k.E)
		if n.BitLen() < minRSABits || n.BitLen() > maxRSABits || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
			return false
		}
		public := &rsa.PublicKey{N: n, E: int(e.Int64())}
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], given.signature) == nil
	case "EC":
		public := &ecdsa.PublicKey{Curve: elliptic.P256(), X: number(k.X), Y: number(k.Y)}
		if len(given.signature) != 64 || !public.Curve.IsOnCurve(public.X, public.Y) {
			return false
		}
		r, s := new(big.Int).SetBytes(given.signature[:32]), new(big.Int).SetBytes(given.signature[32:])
		return ecdsa.Verify(public, digest[:], r, s)
	case "OKP":
		public, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil || len(public) != ed25519.PublicKeySize {
			return false
		}
		return ed25519.Verify(public, given.signed, given.signature)
	}
	return false
}
