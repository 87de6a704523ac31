//! Fetches what a CA has issued, and checks it.

use super::chains;
use super::session::{Download, Session, seen};
use crate::domain::event::Event;
use crate::domain::order::{Answer, Order};
use crate::pki::{self, Issued};
use crate::worker::error::Tried;

pub(super) async fn download(session: &mut Session<'_>, order: &Order) -> Tried<Answer> {
    failpoint!("before_download");
    let csr = session.csr(order).await?;
    let issuer = session.issuer(order).await?;
    let account = session.account(order).await?.url().to_owned();
    let now = session.ctx.clock.now();
    let handle = session.handle(order).await?.0;
    let Some(sent) = handle.certificate().await? else {
        return Ok(Answer::Polled(seen(handle.state())));
    };
    failpoint!("after_download");
    let usual = match pki::check_chain(&sent.chain_pem, &csr, now) {
        Ok(usual) => usual,
        Err(problem) => return Ok(Answer::Failed(chains::unusable(&problem))),
    };
    let preferred = issuer.acme.preferred_chain.as_deref().unwrap_or_default();
    let alternates = &sent.alternates;
    let (chosen, remark) =
        chains::preferred_chain(handle, alternates, usual, preferred, &csr, now).await;
    let mut remarks = chains::remarks(&chosen, order.certificate);
    remarks.extend(
        remark.map(|remark| Event::warning(order.certificate, "PreferredChainNotUsed", remark)),
    );
    let Issued { chain, leaf, .. } = chosen;
    let changed = match session.served_chain(order).await? {
        Some(before) => chains::changed(&before, &chain, order.certificate),
        None => None,
    };
    let leads_elsewhere = changed.is_some();
    remarks.extend(changed);
    session.download = Some(Download { chain, leaf, account, leads_elsewhere, remarks });
    Ok(Answer::Downloaded)
}
