package main

import "strings"

type finding struct {
	rule string
	why  string
}

// lint answers at most one finding per rule.
func lint(query string) []finding {
	var findings []finding
	seen := map[string]bool{}
	report := func(rule, why string) {
		if !seen[rule] {
			seen[rule] = true
			findings = append(findings, finding{rule, why})
		}
	}
	for _, statement := range split(tokenize(query)) {
		lintStatement(statement, report)
	}
	return findings
}

// frame is what the linter knows of the statement, or of one pair of parentheses in it.
type frame struct {
	clause                      string
	from, where, grouped, limit bool
	comma                       bool // between tables
}

func (f frame) close(top bool, report func(rule, why string)) {
	if f.comma && !f.where {
		report("comma-join", "tables with a comma between and no WHERE make a product of all their rows")
	}
	if top && f.from && !f.where && !f.grouped && !f.limit {
		report("no-limit", "this reads all rows of its tables: give it a WHERE or a LIMIT")
	}
}

func lintStatement(tokens []token, report func(rule, why string)) {
	stack := []frame{{}}
	at := func(i int) token {
		if i < 0 || i >= len(tokens) {
			return token{}
		}
		return tokens[i]
	}
	reads := at(0).is("select") || at(0).is("with")
	for i, t := range tokens {
		top := &stack[len(stack)-1]
		if at(i-1).is("as") || at(i-1).is(".") { // a name, whatever it says
			if !(t.is("select") || t.is("(") || t.is("*")) {
				continue
			}
		}
		switch {
		case t.is("("):
			stack = append(stack, frame{})
			if at(i-1).is("in") && at(i-2).is("not") && at(i+1).is("select") {
				report("not-in-subquery", "NOT IN finds nothing once the subquery has a NULL: use NOT EXISTS")
			}
		case t.is(")"):
			if len(stack) > 1 {
				top.close(false, report)
				stack = stack[:len(stack)-1]
			}
		case t.is("select"):
			top.clause = "select"
		case t.is("from") && top.clause == "select" && !at(i-1).is("distinct"):
			top.clause, top.from = "from", true
		case t.is("where"):
			top.clause, top.where = "where", true
		case t.is("group"), t.is("union"), t.is("intersect"), t.is("except"):
			top.clause, top.grouped = t.folded(), true
		case t.is("order"):
			top.clause = "order"
		case t.is("limit"), t.is("fetch"):
			top.clause, top.limit = "limit", true
		case t.is(",") && top.clause == "from":
			top.comma = !at(i+1).is("lateral") && !at(i+1).is("unnest")
		case t.is("*") && top.clause == "select" && (at(i-1).is("select") || at(i-1).is(".") || at(i-1).is(",")):
			report("select-star", "* changes with the table: name the columns")
		case t.is("like"), t.is("ilike"):
			if pattern := at(i + 1); pattern.kind == stringToken && strings.HasPrefix(pattern.text, "'%") {
				report("leading-wildcard", "a pattern that begins with % reads every row")
			}
		}
		if top.clause == "order" && t.kind == numberToken && (at(i-1).is("by") || at(i-1).is(",")) {
			report("order-by-position", "ORDER BY a position breaks when the list changes: name the column")
		}
	}
	stack[0].close(reads, report)
}
