// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sources returns the syntax trees of the Go files in a folder, without tests.
func sources(t *testing.T, folder string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// productFolders returns the folders with the Go files that are built into Caddy.
func productFolders(t *testing.T) (folders []string) {
	t.Helper()
	if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		folder, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch slash := filepath.ToSlash(folder); {
		case slash == "internal/testing", slash == "bench", slash == "examples", slash == "tools", slash == "cmd", slash == "docs",
			slash != "." && strings.HasPrefix(filepath.Base(folder), "."), filepath.Base(folder) == "testdata":
			return filepath.SkipDir
		}
		folders = append(folders, folder)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return folders
}

// TestLogMessages looks for every log message of the code in the table of docs/operations.md.
func TestLogMessages(t *testing.T) {
	_, section, found := strings.Cut(page(t, "docs/operations.md"), "\n## Log messages\n")
	if !found {
		t.Fatal("docs/operations.md has no section on log messages")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	told := map[string]bool{}
	for line := range strings.Lines(section) {
		if cells := cellsOf(line); len(cells) == 4 && strings.HasPrefix(cells[0], "`") {
			told[strings.Trim(cells[0], "`")] = true
		}
	}
	logged := map[string]bool{}
	for _, folder := range productFolders(t) {
		for _, file := range sources(t, folder) {
			for _, message := range messagesIn(file) {
				logged[message] = true
			}
		}
	}
	if len(logged) < 5 {
		t.Errorf("only %d messages are found in the code: does the search still fit?", len(logged))
	}
	for message := range logged {
		if !told[message] {
			t.Errorf("docs/operations.md does not tell of the log message %q", message)
		}
	}
}

// messagesIn returns the log messages in a file: the text that a method of a logger is given, directly or by a variable
// that is named message.
func messagesIn(file *ast.File) (messages []string) {
	add := func(e ast.Expr) {
		if literal, ok := e.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			messages = append(messages, strings.Trim(literal.Value, "\"`"))
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				if name, ok := left.(*ast.Ident); ok && name.Name == "message" && i < len(n.Rhs) {
					add(n.Rhs[i])
				}
			}
		case *ast.CallExpr:
			method, ok := n.Fun.(*ast.SelectorExpr)
			if !ok {
				break
			}
			switch name := method.Sel.Name; {
			case name == "log" && len(n.Args) >= 3:
				add(n.Args[2])
			case slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, name) && len(n.Args) > 0 && mentionsLogger(method.X):
				add(n.Args[0])
			}
		}
		return true
	})
	return messages
}

// mentionsLogger reports whether an expression is a logger, by its name or that of the function that returns it.
func mentionsLogger(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return strings.Contains(strings.ToLower(e.Name), "log")
	case *ast.SelectorExpr:
		return strings.Contains(strings.ToLower(e.Sel.Name), "log")
	case *ast.CallExpr:
		return mentionsLogger(e.Fun)
	}
	return false
}
