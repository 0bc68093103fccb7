// Command jwt-auth recognises users by signed tokens (JWT, RFC 7519), with the keys that their issuer publishes (a JWK
// set, RFC 7517).
//
// The token is the bearer token of the request or, where there is no request, the password. What has not the form of a
// token is left to the next plugin, and so is who brings nothing.
//
// Keys are kept in the plugin's cache, which the pods of a cluster may share. They are fetched again when they are
// old, and when a token names one that is not among them, so an issuer that rotates its keys is followed at once. How
// often that may happen is bounded, since anybody can name a key: whoever does so delays new keys by refetch_seconds. While the issuer cannot be reached, the keys that
// are known are used for some time longer. Without any, nobody is let in.
//
// A token's own word for its algorithm is never enough: it has to be one of the config's, and of the key's kind. What
// a token cannot do here: be encrypted, have two signatures, be revoked before it ends.
package main

import (
	"encoding/json"
	"slices"
	"strings"

	"hookline"
)

type input struct {
	Headers  map[string]string `json:"headers"`
	Password *string           `json:"password"`
}

type config struct {
	Issuer         string   `json:"issuer"`
	Audiences      []string `json:"audiences"`
	JWKSURL        string   `json:"jwks_url"`
	Algorithms     []string `json:"algorithms"`
	OtherIssuers   string   `json:"other_issuers"`
	LeewaySeconds  int64    `json:"leeway_seconds"`
	KeysSeconds    int64    `json:"keys_seconds"`
	StaleSeconds   int64    `json:"stale_seconds"`
	RefetchSeconds int64    `json:"refetch_seconds"`
	FetchMs        int64    `json:"fetch_ms"`
	UsernameClaim  string   `json:"username_claim"`
	RolesClaim     string   `json:"roles_claim"`
	TenantClaim    string   `json:"tenant_claim"`
}

func defaults() config {
	return config{
		Algorithms: []string{"RS256", "ES256", "EdDSA"}, OtherIssuers: "deny", LeewaySeconds: 30, KeysSeconds: 300,
		StaleSeconds: 3600, RefetchSeconds: 10, FetchMs: 1000, UsernameClaim: "sub", RolesClaim: "roles", TenantClaim: "tenant_id",
	}
}

type identity struct {
	UserID   string         `json:"user_id"`
	Username string         `json:"username"`
	Roles    []string       `json:"roles"`
	TenantID string         `json:"tenant_id,omitempty"`
	Claims   map[string]any `json:"claims"`
}

type decision struct {
	Action   string    `json:"action"`
	Message  string    `json:"message,omitempty"`
	Identity *identity `json:"identity,omitempty"`
}

//go:wasmexport authenticate
func hookAuthenticate(at, size uint32) uint64 {
	return hookline.Answer(authenticate(hookline.Input(at, size)))
}

func denied(why string) decision {
	hookline.Count("denied_total")
	return decision{Action: "denied", Message: why}
}

func authenticate(raw []byte) decision {
	var in input
	if err := json.Unmarshal(raw, &in); err != nil {
		hookline.Fail("the input is not JSON: " + err.Error())
	}
	conf := defaults()
	hookline.Config(&conf)
	if conf.Issuer == "" || conf.JWKSURL == "" || len(conf.Audiences) == 0 {
		hookline.Fail("the config needs issuer, audiences and jwks_url")
	}
	text := in.token()
	if strings.Count(text, ".") != 2 {
		return decision{Action: "defer"}
	}
	given, why := parse(text)
	if why != "" {
		return denied(why)
	}
	if given.claims.text("iss") != conf.Issuer && conf.OtherIssuers == "defer" {
		return decision{Action: "defer"}
	}
	// Claims first: who sends an old token does not make us fetch keys.
	now := hookline.GetTime() / 1000
	if why := given.claims.problem(conf, now); why != "" {
		return denied(why)
	}
	if !slices.Contains(conf.Algorithms, given.algorithm) {
		return denied("the token's algorithm is not allowed")
	}
	if why := verify(given, conf, now); why != "" {
		return denied(why)
	}
	user := given.claims.text(conf.UsernameClaim)
	if user == "" {
		return denied("the token names no user")
	}
	hookline.Count("accepted_total")
	return decision{Action: "success", Identity: &identity{
		UserID: given.claims.text("sub"), Username: user, Roles: given.claims.texts(conf.RolesClaim),
		TenantID: given.claims.text(conf.TenantClaim), Claims: given.claims.all(),
	}}
}

// token is what the client brought; empty where it brought nothing.
func (in input) token() string {
	for name, value := range in.Headers {
		scheme, token, found := strings.Cut(value, " ")
		if found && strings.EqualFold(name, "authorization") && strings.EqualFold(scheme, "bearer") {
			return strings.TrimSpace(token)
		}
	}
	if in.Password != nil {
		return *in.Password
	}
	return ""
}

// main is not called: the module is a reactor, and the host calls its exports.
func main() {}
