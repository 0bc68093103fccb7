// Command login-jwt recognises users by tokens (JWT, RFC 7519) that are signed with a secret which the issuer and this
// plugin share (HS256). It asks nobody. jwt-auth is for issuers that publish keys.
//
// The token is the bearer token of the request or, where there is no request, the password. What has not the form of a
// token is left to the next plugin, and so is who brings nothing.
//
// A token's own word for its algorithm is never believed: it has to say HS256, which is the only one that is tried. It
// has to say when it ends. What a token cannot do here: be encrypted, be revoked before it ends.
package main

import (
	"slices"
	"strings"

	"hookline"
)

type config struct {
	Secret        string `json:"secret"`
	Issuer        string `json:"issuer"`
	Audience      string `json:"audience"`
	LeewaySeconds int64  `json:"leeway_seconds"`
	RoleClaim     string `json:"role_claim"`
}

// minSecret is how many bytes a key of HS256 has at least (RFC 7518, section 3.2).
const minSecret = 32

//go:wasmexport authenticate
func authenticate(at, size uint32) uint64 { return hookline.OnAuthenticate(at, size, login) }

func login(in *hookline.AuthenticateInput) hookline.AuthenticateAnswer {
	conf := config{LeewaySeconds: 30, RoleClaim: "roles"}
	hookline.Config(&conf)
	if len(conf.Secret) < minSecret || conf.Issuer == "" || conf.Audience == "" {
		hookline.Fail("the config needs issuer, audience and a secret of 32 bytes or more")
	}
	text := brought(in)
	if strings.Count(text, ".") != 2 {
		return hookline.Defer{}
	}
	given, why := verified(text, conf)
	if why == "" {
		why = given.problem(conf, hookline.GetTime()/1000)
	}
	if why != "" {
		hookline.Count("denied_total")
		return hookline.Denied(why)
	}
	hookline.Count("accepted_total")
	return hookline.Success{
		UserID: given.text("sub"), Username: given.text("sub"), Roles: given.texts(conf.RoleClaim),
		TenantID: given.maybe("tenant_id"), Claims: given,
	}
}

// brought is the token; empty where there is none.
func brought(in *hookline.AuthenticateInput) string {
	scheme, token, found := strings.Cut(in.Headers["authorization"], " ")
	if found && strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(token)
	}
	if in.Password != nil {
		return *in.Password
	}
	return ""
}

// problem is why these claims let nobody in; empty where they do.
func (c claims) problem(conf config, now int64) string {
	switch ends, from := c.time("exp"), c.time("nbf"); {
	case c.text("sub") == "":
		return "the token names no user"
	case c.text("iss") != conf.Issuer:
		return "the token is of another issuer"
	case !slices.Contains(c.texts("aud"), conf.Audience):
		return "the token is for somebody else"
	case ends == nil:
		return "the token does not say when it ends"
	case float64(now-conf.LeewaySeconds) >= *ends:
		return "the token has ended"
	case c["nbf"] != nil && from == nil:
		return "the token's nbf is not a time"
	case from != nil && float64(now+conf.LeewaySeconds) < *from:
		return "the token is not valid yet"
	}
	return ""
}

// main is not called: the module is a reactor, and the host calls its exports.
func main() {}
