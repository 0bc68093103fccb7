// Code generated from hookline_api/hooks.py by scripts/write_sdk.py; DO NOT EDIT.

package hookline

// What the proxy says. A pointer is nil where it says nothing, or null.

// HookContext: Who asks, and where: the same for every hook of one statement.
type HookContext struct {
	// Stays the same over every hook of one statement; made by the sidecar where the proxy sends none.
	RequestID string  `json:"request_id,omitempty"`
	ClientID  *string `json:"client_id,omitempty"`
	// The user's name, as the proxy knows it.
	Identity *string `json:"identity,omitempty"`
	Database *string `json:"database,omitempty"`
	Branch   *string `json:"branch,omitempty"`
	// Anything else that plugins read; `ATTRIBUTES` has the names that they agree about.
	Attributes map[string]string `json:"attributes,omitempty"`
}

func (r *reader) hookContext() (in HookContext) {
	for key, ok := r.first(); ok; key, ok = r.more() {
		switch string(key) {
		case "request_id":
			in.RequestID = r.textOrNone()
		case "client_id":
			in.ClientID = r.maybeText()
		case "identity":
			in.Identity = r.maybeText()
		case "database":
			in.Database = r.maybeText()
		case "branch":
			in.Branch = r.maybeText()
		case "attributes":
			in.Attributes = r.textMap()
		default:
			r.skip(1)
		}
	}
	return in
}

// AuthenticateInput: Input of `authenticate`.
type AuthenticateInput struct {
	// Names in lower case; repeated headers joined with a comma.
	Headers  map[string]string `json:"headers,omitempty"`
	Username string            `json:"username,omitempty"`
	Password *string           `json:"password,omitempty"`
	ClientIP string            `json:"client_ip,omitempty"`
	Database *string           `json:"database,omitempty"`
	// Its `request_id` is the header `x-request-id` where the proxy names it there alone.
	HookContext HookContext `json:"hook_context,omitempty"`
}

func (r *reader) authenticateInput() (in AuthenticateInput) {
	for key, ok := r.first(); ok; key, ok = r.more() {
		switch string(key) {
		case "headers":
			in.Headers = r.textMap()
		case "username":
			in.Username = r.textOrNone()
		case "password":
			in.Password = r.maybeText()
		case "client_ip":
			in.ClientIP = r.textOrNone()
		case "database":
			in.Database = r.maybeText()
		case "hook_context":
			in.HookContext = r.hookContextOrNone()
		default:
			r.skip(1)
		}
	}
	return in
}

// Identity: Who a client is: what `authenticate` answers, and `authorize` is asked with.
type Identity struct {
	// Stays the same for this client, and is nobody else's.
	UserID string `json:"user_id"`
	// For people, and as the user's name in `hook_context.identity`.
	Username string `json:"username"`
	// What the client may act as; a role has no comma. In later hooks it is the attribute `identity.roles`.
	Roles []string `json:"roles,omitempty"`
	// The tenant that the client belongs to; in later hooks it is the attribute of that name.
	TenantID *string `json:"tenant_id,omitempty"`
	// Anything else that was proven of the client, such as the claims of a token.
	Claims map[string]any `json:"claims,omitempty"`
}

func (r *reader) identity() (in Identity) {
	var hasUserID, hasUsername bool
	for key, ok := r.first(); ok; key, ok = r.more() {
		switch string(key) {
		case "user_id":
			in.UserID = r.plainText()
			hasUserID = true
		case "username":
			in.Username = r.plainText()
			hasUsername = true
		case "roles":
			in.Roles = r.texts()
		case "tenant_id":
			in.TenantID = r.maybeText()
		case "claims":
			in.Claims = r.anyMap()
		default:
			r.skip(1)
		}
	}
	r.need(hasUserID, "user_id")
	r.need(hasUsername, "username")
	return in
}

// AuthorizeInput: Input of `authorize`.
type AuthorizeInput struct {
	// The statement, as the client sent it.
	Query string `json:"query"`
	// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
	// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
	Normalized  string      `json:"normalized,omitempty"`
	Tables      []string    `json:"tables,omitempty"`
	IsReadOnly  bool        `json:"is_read_only,omitempty"`
	HookContext HookContext `json:"hook_context,omitempty"`
	Identity    *Identity   `json:"identity,omitempty"`
	// What is to be done: a verb of the proxy's, or an HTTP method. Empty where the proxy does not say.
	Action string `json:"action,omitempty"`
	// To what: a table, or an HTTP path. Empty where the proxy does not say.
	Resource string `json:"resource,omitempty"`
}

func (r *reader) authorizeInput() (in AuthorizeInput) {
	var hasQuery bool
	for key, ok := r.first(); ok; key, ok = r.more() {
		switch string(key) {
		case "query":
			in.Query = r.plainText()
			hasQuery = true
		case "normalized":
			in.Normalized = r.textOrNone()
		case "tables":
			in.Tables = r.texts()
		case "is_read_only":
			in.IsReadOnly = r.flag()
		case "hook_context":
			in.HookContext = r.hookContextOrNone()
		case "identity":
			in.Identity = r.maybeIdentity()
		case "action":
			in.Action = r.textOrNone()
		case "resource":
			in.Resource = r.textOrNone()
		default:
			r.skip(1)
		}
	}
	r.need(hasQuery, "query")
	return in
}

// QueryInput: Input of `pre_query`, `rewrite` and `route`.
type QueryInput struct {
	// The statement, as the client sent it.
	Query string `json:"query"`
	// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
	// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
	Normalized  string      `json:"normalized,omitempty"`
	Tables      []string    `json:"tables,omitempty"`
	IsReadOnly  bool        `json:"is_read_only,omitempty"`
	HookContext HookContext `json:"hook_context,omitempty"`
}

func (r *reader) queryInput() (in QueryInput) {
	var hasQuery bool
	for key, ok := r.first(); ok; key, ok = r.more() {
		switch string(key) {
		case "query":
			in.Query = r.plainText()
			hasQuery = true
		case "normalized":
			in.Normalized = r.textOrNone()
		case "tables":
			in.Tables = r.texts()
		case "is_read_only":
			in.IsReadOnly = r.flag()
		case "hook_context":
			in.HookContext = r.hookContextOrNone()
		default:
			r.skip(1)
		}
	}
	r.need(hasQuery, "query")
	return in
}

// CacheGetInput: Input of `cache_get`.
type CacheGetInput struct {
	// The statement, as the client sent it.
	Query string `json:"query"`
	// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
	// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
	Normalized  string      `json:"normalized,omitempty"`
	Tables      []string    `json:"tables,omitempty"`
	IsReadOnly  bool        `json:"is_read_only,omitempty"`
	HookContext HookContext `json:"hook_context,omitempty"`
	Key         string      `json:"key"`
}

func (r *reader) cacheGetInput() (in CacheGetInput) {
	var hasQuery, hasKey bool
	for key, ok := r.first(); ok; key, ok = r.more() {
		switch string(key) {
		case "query":
			in.Query = r.plainText()
			hasQuery = true
		case "normalized":
			in.Normalized = r.textOrNone()
		case "tables":
			in.Tables = r.texts()
		case "is_read_only":
			in.IsReadOnly = r.flag()
		case "hook_context":
			in.HookContext = r.hookContextOrNone()
		case "key":
			in.Key = r.plainText()
			hasKey = true
		default:
			r.skip(1)
		}
	}
	r.need(hasQuery, "query")
	r.need(hasKey, "key")
	return in
}

// CacheSetInput: Input of `cache_set`.
type CacheSetInput struct {
	// The statement, as the client sent it.
	Query string `json:"query"`
	// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
	// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
	Normalized  string      `json:"normalized,omitempty"`
	Tables      []string    `json:"tables,omitempty"`
	IsReadOnly  bool        `json:"is_read_only,omitempty"`
	HookContext HookContext `json:"hook_context,omitempty"`
	Key         string      `json:"key"`
	// The bytes to store, base64.
	Value string `json:"value"`
	TTLMs *int64 `json:"ttl_ms,omitempty"`
}

func (r *reader) cacheSetInput() (in CacheSetInput) {
	var hasQuery, hasKey, hasValue bool
	for key, ok := r.first(); ok; key, ok = r.more() {
		switch string(key) {
		case "query":
			in.Query = r.plainText()
			hasQuery = true
		case "normalized":
			in.Normalized = r.textOrNone()
		case "tables":
			in.Tables = r.texts()
		case "is_read_only":
			in.IsReadOnly = r.flag()
		case "hook_context":
			in.HookContext = r.hookContextOrNone()
		case "key":
			in.Key = r.plainText()
			hasKey = true
		case "value":
			in.Value = r.plainText()
			hasValue = true
		case "ttl_ms":
			in.TTLMs = r.maybeInteger()
		default:
			r.skip(1)
		}
	}
	r.need(hasQuery, "query")
	r.need(hasKey, "key")
	r.need(hasValue, "value")
	return in
}

// EventInput: Input of `on_connect`, `on_disconnect` and `metrics`.
type EventInput struct {
	HookContext HookContext    `json:"hook_context,omitempty"`
	Event       map[string]any `json:"event,omitempty"`
}

func (r *reader) eventInput() (in EventInput) {
	for key, ok := r.first(); ok; key, ok = r.more() {
		switch string(key) {
		case "hook_context":
			in.HookContext = r.hookContextOrNone()
		case "event":
			in.Event = r.anyMap()
		default:
			r.skip(1)
		}
	}
	return in
}

// Outcome: How a statement went; the second element of `post_query`'s input.
type Outcome struct {
	Success       bool    `json:"success"`
	TargetNode    *string `json:"target_node,omitempty"`
	ElapsedUs     int64   `json:"elapsed_us,omitempty"`
	ResponseBytes int64   `json:"response_bytes,omitempty"`
	Error         *string `json:"error,omitempty"`
}

func (r *reader) outcome() (in Outcome) {
	var hasSuccess bool
	for key, ok := r.first(); ok; key, ok = r.more() {
		switch string(key) {
		case "success":
			in.Success = r.plainFlag()
			hasSuccess = true
		case "target_node":
			in.TargetNode = r.maybeText()
		case "elapsed_us":
			in.ElapsedUs = r.integer()
		case "response_bytes":
			in.ResponseBytes = r.integer()
		case "error":
			in.Error = r.maybeText()
		default:
			r.skip(1)
		}
	}
	r.need(hasSuccess, "success")
	return in
}

func (r *reader) hookContextOrNone() (in HookContext) {
	if r.null() {
		return in
	}
	return r.hookContext()
}

func (r *reader) maybeIdentity() *Identity {
	if r.null() {
		return nil
	}
	in := r.identity()
	return &in
}

// What hooks answer. Nil is a hook's default.

// AuthenticateAnswer is one of Success, Denied, Defer. Nil is the default: defer.
type AuthenticateAnswer interface {
	authenticate() []byte
}

// AuthorizeAnswer is one of Allow, Deny, Defer. Nil is the default: defer.
type AuthorizeAnswer interface {
	authorize() []byte
}

// PreQueryAnswer is one of Continue, Rewrite, Block, Cached. Nil is the default: continue.
type PreQueryAnswer interface {
	preQuery() []byte
}

// RewriteAnswer is one of Continue, Rewrite, Block. Nil is the default: continue.
type RewriteAnswer interface {
	rewrite() []byte
}

// RouteAnswer is one of Default, Primary, Standby, Node, Branch, Block. Nil is the default: default.
type RouteAnswer interface {
	route() []byte
}

// CacheGetAnswer is one of Hit, Miss. Nil is the default: miss.
type CacheGetAnswer interface {
	cacheGet() []byte
}

// CacheSetAnswer is one of Store, Skip. Nil is the default: store.
type CacheSetAnswer interface {
	cacheSet() []byte
}

// Success: The client is who `identity` says.
type Success Identity

func (a Success) authenticate() []byte {
	return action("success").any("identity", a).end()
}

// Denied: The client's credentials are wrong.
type Denied string

func (a Denied) authenticate() []byte {
	return action("denied").text("message", string(a)).end()
}

// Defer: No plugin has an opinion; the proxy's own rules apply.
type Defer struct{}

func (Defer) authenticate() []byte {
	return action("defer").end()
}

// Allow: The action may be done.
type Allow string

func (a Allow) authorize() []byte {
	return action("allow").maybeText("reason", string(a)).end()
}

// Deny: The action may not be done.
type Deny string

func (a Deny) authorize() []byte {
	return action("deny").maybeText("reason", string(a)).end()
}

func (Defer) authorize() []byte {
	return action("defer").end()
}

// Continue: Go on with the query as it is.
type Continue struct{}

func (Continue) preQuery() []byte {
	return action("continue").end()
}

// Rewrite: Go on with another query.
type Rewrite string

func (a Rewrite) preQuery() []byte {
	return action("rewrite").text("value", string(a)).end()
}

// Block: Refuse the statement.
type Block string

func (a Block) preQuery() []byte {
	return action("block").text("value", string(a)).end()
}

// Cached: Answer the client with these bytes, and do not run the query.
type Cached []byte

func (a Cached) preQuery() []byte {
	return action("cached").bytes("data", a).end()
}

func (Continue) rewrite() []byte {
	return action("continue").end()
}

func (a Rewrite) rewrite() []byte {
	return action("rewrite").text("value", string(a)).end()
}

func (a Block) rewrite() []byte {
	return action("block").text("value", string(a)).end()
}

// Default: Send the statement to the default node, the primary, or any standby.
type Default struct{}

func (Default) route() []byte {
	return action("default").end()
}

// Primary: Send the statement to the default node, the primary, or any standby.
type Primary struct{}

func (Primary) route() []byte {
	return action("primary").end()
}

// Standby: Send the statement to the default node, the primary, or any standby.
type Standby struct{}

func (Standby) route() []byte {
	return action("standby").end()
}

// Node: Send the statement to a node or a branch by name.
type Node string

func (a Node) route() []byte {
	return action("node").text("target", string(a)).end()
}

// Branch: Send the statement to a node or a branch by name.
type Branch string

func (a Branch) route() []byte {
	return action("branch").text("target", string(a)).end()
}

func (a Block) route() []byte {
	return action("block").text("reason", string(a)).end()
}

// Hit: Answer from the cache.
type Hit struct {
	Data  []byte
	TTLMs *int64
}

func (a Hit) cacheGet() []byte {
	return action("hit").bytes("data", a.Data).maybeInteger("ttl_ms", a.TTLMs).end()
}

// Miss: The cache has nothing.
type Miss struct{}

func (Miss) cacheGet() []byte {
	return action("miss").end()
}

// Store: Store the value.
type Store struct {
	TTLMs *int64
}

func (a Store) cacheSet() []byte {
	return action("store").maybeInteger("ttl_ms", a.TTLMs).end()
}

// Skip: Do not store the value.
type Skip struct{}

func (Skip) cacheSet() []byte {
	return action("skip").end()
}

// Hooks.

// OnAuthenticate runs a authenticate hook on what the host wrote.
func OnAuthenticate(at, size uint32, hook func(*AuthenticateInput) AuthenticateAnswer) uint64 {
	defer recovered()
	in, err := read(Input(at, size), (*reader).authenticateInput)
	if err != nil {
		Fail(err.Error())
	}
	if answer := hook(&in); answer != nil {
		return written(answer.authenticate())
	}
	return 0
}

// OnAuthorize runs a authorize hook on what the host wrote.
func OnAuthorize(at, size uint32, hook func(*AuthorizeInput) AuthorizeAnswer) uint64 {
	defer recovered()
	in, err := read(Input(at, size), (*reader).authorizeInput)
	if err != nil {
		Fail(err.Error())
	}
	if answer := hook(&in); answer != nil {
		return written(answer.authorize())
	}
	return 0
}

// OnPreQuery runs a pre_query hook on what the host wrote.
func OnPreQuery(at, size uint32, hook func(*QueryInput) PreQueryAnswer) uint64 {
	defer recovered()
	in, err := read(Input(at, size), (*reader).queryInput)
	if err != nil {
		Fail(err.Error())
	}
	if answer := hook(&in); answer != nil {
		return written(answer.preQuery())
	}
	return 0
}

// OnRewrite runs a rewrite hook on what the host wrote.
func OnRewrite(at, size uint32, hook func(*QueryInput) RewriteAnswer) uint64 {
	defer recovered()
	in, err := read(Input(at, size), (*reader).queryInput)
	if err != nil {
		Fail(err.Error())
	}
	if answer := hook(&in); answer != nil {
		return written(answer.rewrite())
	}
	return 0
}

// OnRoute runs a route hook on what the host wrote.
func OnRoute(at, size uint32, hook func(*QueryInput) RouteAnswer) uint64 {
	defer recovered()
	in, err := read(Input(at, size), (*reader).queryInput)
	if err != nil {
		Fail(err.Error())
	}
	if answer := hook(&in); answer != nil {
		return written(answer.route())
	}
	return 0
}

// OnCacheGet runs a cache_get hook on what the host wrote.
func OnCacheGet(at, size uint32, hook func(*CacheGetInput) CacheGetAnswer) uint64 {
	defer recovered()
	in, err := read(Input(at, size), (*reader).cacheGetInput)
	if err != nil {
		Fail(err.Error())
	}
	if answer := hook(&in); answer != nil {
		return written(answer.cacheGet())
	}
	return 0
}

// OnCacheSet runs a cache_set hook on what the host wrote.
func OnCacheSet(at, size uint32, hook func(*CacheSetInput) CacheSetAnswer) uint64 {
	defer recovered()
	in, err := read(Input(at, size), (*reader).cacheSetInput)
	if err != nil {
		Fail(err.Error())
	}
	if answer := hook(&in); answer != nil {
		return written(answer.cacheSet())
	}
	return 0
}

// OnPostQuery runs a post_query hook on what the host wrote.
func OnPostQuery(at, size uint32, hook func(*QueryInput, *Outcome)) uint64 {
	defer recovered()
	var in QueryInput
	var outcome Outcome
	err := readPair(Input(at, size), &in, &outcome)
	if err != nil {
		Fail(err.Error())
	}
	hook(&in, &outcome)
	return 0
}

// OnMetrics runs a metrics hook on what the host wrote.
func OnMetrics(at, size uint32, hook func(*EventInput)) uint64 {
	defer recovered()
	in, err := read(Input(at, size), (*reader).eventInput)
	if err != nil {
		Fail(err.Error())
	}
	hook(&in)
	return 0
}

// OnConnect runs a on_connect hook on what the host wrote.
func OnConnect(at, size uint32, hook func(*EventInput)) uint64 {
	defer recovered()
	in, err := read(Input(at, size), (*reader).eventInput)
	if err != nil {
		Fail(err.Error())
	}
	hook(&in)
	return 0
}

// OnDisconnect runs a on_disconnect hook on what the host wrote.
func OnDisconnect(at, size uint32, hook func(*EventInput)) uint64 {
	defer recovered()
	in, err := read(Input(at, size), (*reader).eventInput)
	if err != nil {
		Fail(err.Error())
	}
	hook(&in)
	return 0
}
