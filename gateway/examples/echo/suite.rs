//! What the echo programs for the official suites share.

use anyhow::Context;
use gateway::http::Echo;

use crate::echo::{interrupted, listen};

const PORT_DEFAULT: u16 = 3000;

/// Serves on `PORT` (3000 by default), `PACE` times slower than the official suites have it (once, by default), until Ctrl-C.
///
/// # Errors
/// When one of these is no number, or the port is not free.
pub async fn serve(echo: Echo) -> anyhow::Result<()> {
    let pace = std::env::var("PACE").map_or(Ok(1), |pace| pace.parse().context("PACE must be a number"))?;
    echo.serve(listen(PORT_DEFAULT).await?, pace, interrupted()).await;
    Ok(())
}
