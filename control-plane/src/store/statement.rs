//! A named SQL text, and its two spellings where the engines differ.

use sqlx::AnyConnection;

use crate::config::Engine;

/// One statement: the text for SQLite and the text for MySQL, mostly the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statement {
    #[cfg_attr(not(test), expect(dead_code, reason = "names the statement in the test that prepares it"))]
    pub(crate) name: &'static str,
    sqlite: &'static str,
    mysql: &'static str,
}

impl Statement {
    pub(crate) const fn same(name: &'static str, text: &'static str) -> Self {
        Self { name, sqlite: text, mysql: text }
    }

    pub(crate) const fn pair(name: &'static str, sqlite: &'static str, mysql: &'static str) -> Self {
        Self { name, sqlite, mysql }
    }

    /// The text for this engine.
    pub(crate) const fn text(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::Sqlite => self.sqlite,
            Engine::Mysql => self.mysql,
        }
    }

    /// The text for the engine that `conn` speaks to.
    pub(crate) fn on(&self, conn: &AnyConnection) -> &'static str {
        self.text(engine_of(conn))
    }
}

/// The engine behind a connection.
pub(crate) fn engine_of(conn: &AnyConnection) -> Engine {
    if conn.backend_name() == "SQLite" { Engine::Sqlite } else { Engine::Mysql }
}

/// Declares the statements of a file and the list `ALL` of them.
///
/// `NAME = "text";` gives `const NAME: &str`, the same on both engines;
/// `NAME = sqlite "text", mysql "text";` gives `const NAME: Statement`, to be used as `NAME.on(conn)`.
macro_rules! statements {
    ($($name:ident = $first:tt $($second:literal, mysql $third:literal)?;)*) => {
        $($crate::store::statements!(@define $name, $first $($second, mysql $third)?);)*
        pub(super) const ALL: &[$crate::store::Statement] =
            &[$($crate::store::statements!(@entry $name, $first $($second, mysql $third)?)),*];
    };
    (@define $name:ident, sqlite $sqlite:literal, mysql $mysql:literal) => {
        const $name: $crate::store::Statement =
            $crate::store::Statement::pair(stringify!($name), $sqlite, $mysql);
    };
    (@define $name:ident, $text:literal) => { const $name: &str = $text; };
    (@entry $name:ident, sqlite $sqlite:literal, mysql $mysql:literal) => { $name };
    (@entry $name:ident, $text:literal) => { $crate::store::Statement::same(stringify!($name), $text) };
}
pub(crate) use statements;
